import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from components import evaluations
from components.monitoring import statistics
from marco_model.errors import InputError


def table(rows=5, classes=3):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "shard": [f"data-{row % 2}.tfrecord" for row in range(rows)],
            "index": np.arange(rows, dtype=np.int32),
            "image_id": np.arange(rows) + 2**40,
            "filename": [f"é{row}.jpg" for row in range(rows)],
            "label": np.arange(rows, dtype=np.int16) % classes,
            "institution": "CSIRO",
            "imager": "Rigaku Minstrel",
            "scores": list(rng.random([rows, classes]).astype(np.float32)),
            "plate": [f"plate {row}" for row in range(rows)],
        }
    )


def test_a_table_is_read_as_it_was_written_in_order(tmp_path):
    original = table()
    evaluations.write_predictions(original.sample(frac=1, random_state=1), tmp_path / "predictions.parquet")
    found = evaluations.read_predictions(str(tmp_path))
    assert list(zip(found["shard"], found["index"], strict=True)) == [
        ("data-0.tfrecord", 0),
        ("data-0.tfrecord", 2),
        ("data-0.tfrecord", 4),
        ("data-1.tfrecord", 1),
        ("data-1.tfrecord", 3),
    ]
    again = original.iloc[found["index"]]
    for column in ("image_id", "filename", "label", "institution", "imager", "plate"):
        assert found[column].tolist() == again[column].tolist()
    np.testing.assert_array_equal(
        evaluations.scores_of(found), evaluations.scores_of(original)[found["index"].to_numpy()]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]


def test_the_types_of_the_columns(tmp_path):
    evaluations.write_predictions(table(), tmp_path / "predictions.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "predictions.parquet")
    found = {name: str(schema.field(name).type) for name in schema.names if name != "scores"}
    assert found == {
        "shard": "string",
        "index": "int32",
        "image_id": "int64",
        "filename": "string",
        "label": "int16",
        "institution": "string",
        "imager": "string",
        "plate": "string",
    }
    assert schema.field("scores").type.value_type == pyarrow.float32()


def test_no_examples_give_an_empty_table(tmp_path):
    evaluations.write_predictions(table(0), tmp_path / "predictions.parquet")
    assert evaluations.scores_of(evaluations.read_predictions(str(tmp_path))).shape == (0, 0)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"predictions\.parquet is missing"):
        evaluations.read_predictions(str(tmp_path))


class Program:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("read", [evaluations.read_predictions, statistics.read_table])
def test_a_program_in_a_file_is_not_executed(tmp_path, read):
    """CVE-2023-47248: pyarrow below 14.0.1 unpickles what the schema of a Parquet file holds."""
    executed = tmp_path / "executed"
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Program(executed)),
    }
    schema = pyarrow.schema([pyarrow.field("shard", pyarrow.string(), metadata=metadata)])
    file = tmp_path / evaluations.PREDICTIONS_FILE
    pyarrow.parquet.write_table(pyarrow.Table.from_pydict({"shard": ["a"]}, schema), file)
    with pytest.raises(InputError, match="is not a Parquet file that can be read"):
        read(str(tmp_path if read is evaluations.read_predictions else file))
    assert not executed.exists()


def test_what_is_not_parquet_is_reported_with_its_name(tmp_path):
    (tmp_path / evaluations.PREDICTIONS_FILE).write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=rf"{tmp_path}/predictions.parquet is not a Parquet file that can be read: "):
        evaluations.read_predictions(str(tmp_path))


def test_parquet_is_read_in_one_place():
    root = Path(evaluations.__file__).parents[1]
    packages = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines")
    readers = re.compile(
        r"parquet\.(read_|Parquet)|(pd|pandas)\.read_(parquet|feather|pickle)|ReadFromParquet|pyarrow\.ipc"
    )
    own = {
        path.name for package in packages for path in (root / package).rglob("*.py") if readers.search(path.read_text())
    }
    assert own == {"evaluations.py"}
