from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from marco_model import example_files
from marco_model.errors import InputError


def write(path, records, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Two files of records of several lengths, an empty one among them, and one file without records."""
    folder = tmp_path / "examples" / "Split-train"
    folder.mkdir(parents=True)
    return [
        write(folder / "data-b", [b"12345", b"", b"1" * 70_000]),
        write(folder / "data-a", [b"123"]),
        write(folder / "data-c", []),
    ]


def data_at(index, number):
    with Path(index.files[index.file[number]]).open("rb") as file:
        file.seek(index.offset[number] + 12)
        return file.read(index.length[number])


EXPECTED = [b"123", b"12345", b"", b"1" * 70_000]


def test_every_record_is_found_in_the_order_of_files_and_records(files):
    index = example_files.read_index(files)
    assert [data_at(index, number) for number in range(len(index))] == EXPECTED


def test_a_written_index_is_read_in_place_of_the_files(files):
    lengths = {"data-a": [3], "data-b": [5, 0, 70_000], "data-c": []}
    walked = example_files.read_index(files)
    example_files.write_index(files[0].rpartition("/")[0], lengths)
    for file in files:
        with Path(file).open("r+b") as stream:
            stream.write(b"\xff" * 8)  # No longer a length.
    index = example_files.read_index(files)
    for name in ("file", "offset", "length"):
        np.testing.assert_array_equal(getattr(index, name), getattr(walked, name))


def test_some_of_the_records_are_an_index_in_their_order(files):
    index = example_files.read_index(files)
    chosen = index.select(np.array([True, False, False, True]))
    assert [data_at(chosen, number) for number in range(len(chosen))] == [EXPECTED[0], EXPECTED[3]]
    assert chosen.files == index.files


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x05" + b"\0" * 7, b"\x05" + b"\0" * 15])
def test_a_file_of_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(InputError, match="data is not a TFRecord file from record 0 on; give"):
        example_files.read_index([str(path)])


def test_a_compressed_file_is_refused(tmp_path):
    path = write(tmp_path / "data.gz", [b"123"], "GZIP")
    with pytest.raises(InputError, match="not compressed"):
        example_files.read_index([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent cannot be read"):
        example_files.read_index([str(tmp_path / "absent")])
