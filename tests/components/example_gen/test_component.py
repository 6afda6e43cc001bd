"""The component in a real TFX pipeline."""

import csv
import logging

import pydantic
import pytest

from marco_data.shards import fingerprint


@pytest.mark.slow
def test_the_component_runs_is_cached_and_keeps_the_quarantine_of_a_run_given_up(
    damaged_set, make_example, write_shard, tmp_path, caplog
):
    from tfx import v1 as tfx
    from tfx.dsl.io import fileio
    from tfx.orchestration import metadata
    from tfx.types import artifact_utils

    from components.settings import LOCAL_BEAM_ARGS, IngestOptions
    from components.steps.ingestion import LAYOUT, MarcoExampleGen

    def run(name, uri, options):
        parameter = pydantic.TypeAdapter(IngestOptions).dump_json(options).decode()
        pipeline = tfx.dsl.Pipeline(
            pipeline_name=name,
            pipeline_root=str(tmp_path / name),
            components=[
                MarcoExampleGen(input_uri=uri, fingerprint=fingerprint([uri]), options=parameter, layout=LAYOUT)
            ],
            beam_pipeline_args=list(LOCAL_BEAM_ARGS),
            enable_cache=True,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(tmp_path / f"{name}.db")),
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)

    for _ in range(2):
        run("sound", damaged_set.folder, IngestOptions(validation_share=0.5))
    (execution,) = (tmp_path / "sound" / "MarcoExampleGen" / "examples").iterdir()
    assert sorted(path.name for path in execution.iterdir()) == [
        "Split-eval",
        "Split-train",
        "Split-validation",
        "index",
    ]
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(tmp_path / "sound.db"))) as store:
        (record,) = [each for each in store.store.get_artifacts_by_type("Examples") if each.uri == str(execution)]
        (quarantine,) = store.store.get_artifacts_by_type("components.Quarantine")
    splits = artifact_utils.decode_split_names(record.properties["split_names"].string_value)
    assert splits == ["train", "validation", "eval"]
    assert quarantine.custom_properties["quarantined"].int_value == 20
    assert fileio.exists(f"{quarantine.uri}/quarantine.csv")

    caplog.set_level(logging.CRITICAL)
    with pytest.raises(Exception, match=r"over the limit of 1\.00%"):
        run("broken", damaged_set.folder, IngestOptions(max_quarantined=0.01))
    (kept,) = (tmp_path / "broken" / "MarcoExampleGen" / "quarantine").glob("*-kept")
    with (kept / "quarantine.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 20
    assert not list((tmp_path / "broken" / "MarcoExampleGen" / "examples").rglob("*tfrecord-*"))

    write_shard(tmp_path / "half" / "train-00001-of-00001", [make_example(1)])
    with pytest.raises(Exception, match=r"the eval split of .* is empty"):
        run("half", str(tmp_path / "half"), IngestOptions())
    write_shard(tmp_path / "half" / "test-00001-of-00001", [make_example(2)])
    with pytest.raises(Exception, match=r"the validation split of .* is empty: .* than 0\.1"):
        run("half", str(tmp_path / "half"), IngestOptions())
    run("half", str(tmp_path / "half"), IngestOptions(splits="as_published"))
