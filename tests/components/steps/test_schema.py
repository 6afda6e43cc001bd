import hashlib
import json
import pathlib

import pytest

from components.steps import ingestion


def test_a_changed_schema_changes_the_fingerprint():
    text = pathlib.Path(ingestion.__file__).with_name("schema.pbtxt").read_bytes()
    assert ingestion.schema_fingerprint() == hashlib.sha256(text).hexdigest()


def test_statistics_are_taken_of_all_but_the_image_bytes():
    from marco_data import contract

    features = set(contract.BYTES_FEATURES + contract.INT_FEATURES) | {"institution", "imager"}
    assert set(ingestion.stats_options().feature_allowlist) == features - {contract.ENCODED}


@pytest.mark.slow
def test_the_component_writes_a_schema_that_tfx_reads(tmp_path):
    from tfx.types import standard_artifacts
    from tfx.utils import io_utils

    classes = ["Hit", "Miss", "Unsure"]
    component = ingestion.CuratedSchema(fingerprint=ingestion.schema_fingerprint(), classes=json.dumps(classes))
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path)
    component.executor_spec.executor_class().Do({}, {"schema": [artifact]}, dict(component.exec_properties))
    content = io_utils.SchemaReader().read(str(tmp_path / "schema.pbtxt"))
    features = {feature.name: feature for feature in content.feature}
    assert features["image/class/text"].string_domain.value == classes
    assert features["image/class/label"].int_domain.max == 2


@pytest.mark.slow
def test_transform_parses_examples_by_the_schema():
    """As TFX's Transform and Trainer do: every feature is a dense scalar."""
    from tensorflow_transform.tf_metadata import schema_utils

    spec = schema_utils.schema_as_feature_spec(ingestion.curated_schema()).feature_spec
    assert {name: feature.shape for name, feature in spec.items()} == {name: [] for name in spec}
    assert "image/encoded" in spec


def test_the_schemas_own_classes_are_the_four():
    from marco_model.labels import CLASSES

    features = {feature.name: feature for feature in ingestion.curated_schema().feature}
    assert features["image/class/text"].string_domain.value == list(CLASSES)
    assert features["image/class/label"].int_domain.max == len(CLASSES) - 1
    assert ingestion.curated_schema(classes=CLASSES) == ingestion.curated_schema()
