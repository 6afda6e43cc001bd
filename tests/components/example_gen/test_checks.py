"""The check gives a verdict on any record, and TensorFlow reads every accepted record as training does."""

import time

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf

from benchmarks import serve_hostile
from components.example_gen.checks import Accepted, LeftOut, Rejected, Tables, check_record
from components.settings import BY_HASH, IngestOptions, parse
from marco_data import contract, place_reader
from marco_data.name_tables import IMAGER_RULES
from marco_model.errors import InputError
from marco_model.labels import LabelScheme

SOURCES = {number: f"institution {number}" for number in range(5)}
OPTIONS = IngestOptions()
RAW_LABELS = {3: "needles", 4: "dark"}
RAW_OPTIONS = IngestOptions(label_scheme=LabelScheme("mine", ("Hit", "Miss"), table={"3": "Hit", "dark": None}))
SCHEMA = {
    **{name: tf.io.FixedLenFeature([], tf.string) for name in contract.BYTES_FEATURES},
    **{name: tf.io.FixedLenFeature([], tf.int64) for name in contract.INT_FEATURES},
    contract.INSTITUTION: tf.io.FixedLenFeature([], tf.string),
    contract.IMAGER: tf.io.FixedLenFeature([], tf.string),
    contract.PLATE: tf.io.FixedLenFeature([], tf.string, default_value=""),
}


def verdict_holds(data, options=OPTIONS):
    """The verdict is one of the three, and TensorFlow can read an accepted record."""
    verdict = check_record(data, Tables(SOURCES, RAW_LABELS), options)
    if isinstance(verdict, LeftOut):
        assert options is RAW_OPTIONS and verdict.label
        return verdict
    if isinstance(verdict, Rejected):
        assert verdict.reason in contract.REASONS and verdict.detail and "\n" not in verdict.detail
        return verdict
    assert isinstance(verdict, Accepted)
    read = tf.io.parse_single_example(verdict.data + verdict.suffix, SCHEMA)
    assert read[contract.IMAGE_ID] == verdict.image_id
    assert read[contract.LABEL_TEXT].numpy().decode() == options.label_scheme.classes[read[contract.LABEL]]
    image = tf.io.decode_image(read[contract.ENCODED], 3, expand_animations=False)
    assert image.shape == (read[contract.HEIGHT], read[contract.WIDTH], 3)
    assert read[contract.INSTITUTION].numpy().decode() == SOURCES[int(read[contract.SOURCE])]
    return verdict


@hypothesis.settings(deadline=None, max_examples=200, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=st.data(), image_format=st.sampled_from(["JPEG", "PNG"]))
def test_bytes_changed_anywhere_get_a_verdict(make_example, data, image_format):
    record = bytearray(make_example(3, image_format=image_format).SerializeToString(deterministic=True))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(record) - 1))
        if data.draw(st.booleans()):
            record[position] = data.draw(st.integers(0, 255))
        else:
            del record[position : position + data.draw(st.integers(1, 400))]
        hypothesis.assume(record)
    verdict_holds(bytes(record))


VALUES = st.one_of(
    st.builds(
        lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)), st.lists(st.binary(), max_size=2)
    ),
    st.builds(
        lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2),
    ),
    st.builds(
        lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
        st.lists(st.floats(width=32), max_size=2),
    ),
)


@hypothesis.settings(deadline=None, max_examples=150, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    options=st.sampled_from([OPTIONS, RAW_OPTIONS]),
    changes=st.dictionaries(
        st.sampled_from(
            (*contract.BYTES_FEATURES, *contract.INT_FEATURES, contract.INSTITUTION, contract.PLATE, "another")
        ),
        VALUES,
    ),
)
def test_features_of_any_kind_get_a_verdict(make_example, options, changes):
    example = make_example(3)
    for name, feature in changes.items():
        example.features.feature[name].ParseFromString(feature.SerializeToString())
    verdict_holds(example.SerializeToString(), options)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_cut_anywhere_inside_is_rejected(make_example, image_format):
    encoded = make_example(3, image_format=image_format).features.feature[contract.ENCODED].bytes_list.value[0]
    for share in (0.3, 0.5, 0.7, 0.9):
        cut = make_example(3, image_format=image_format, encoded=encoded[: int(len(encoded) * share)])
        verdict = verdict_holds(cut.SerializeToString())
        assert isinstance(verdict, Rejected), share


def test_a_jpeg_that_the_decoder_fills_with_grey_is_rejected(make_example):
    encoded = make_example(3).features.feature[contract.ENCODED].bytes_list.value[0]
    grey = encoded[: len(encoded) // 2] + encoded[-2:]
    assert tf.io.decode_jpeg(grey).shape == (40, 48, 3)
    verdict = verdict_holds(make_example(3, encoded=grey).SerializeToString())
    assert verdict.reason == contract.UNDECODABLE_IMAGE
    assert "premature end" in verdict.detail


def test_a_jpeg_that_takes_too_long_to_decode_is_rejected(make_example):
    slow = serve_hostile.slow_jpeg(7000, 7000, 15)
    longer = slow[:-2] + slow[slow.rindex(b"\xff\xda") : -2] * 6 + slow[-2:]
    begun = time.monotonic()
    record = make_example(3, encoded=longer, height=7000, width=7000)
    assert verdict_holds(record.SerializeToString()).reason == contract.TOO_MANY_SCANS
    assert time.monotonic() - begun < 2


def test_a_record_ingested_before_takes_the_new_institution(make_example):
    data = make_example(3).SerializeToString()
    once = data + check_record(data, Tables(SOURCES), OPTIONS).suffix
    twice = once + check_record(once, Tables({3: "Renamed"}), OPTIONS).suffix
    read = tf.io.parse_single_example(twice, SCHEMA)
    assert read[contract.INSTITUTION] == b"Renamed"


def test_the_imager_table_survives_a_round_trip_through_a_parameter():
    options = IngestOptions(imager_rules=IMAGER_RULES[1:])
    assert IngestOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize("rules", ["{", [1], [{"institution": "CSIRO"}], [{"camera": "x"}]])
def test_a_broken_imager_table_is_reported_in_one_line(rules):
    with pytest.raises(InputError, match=r"^here: [^\n]*imager_rules[^\n]+$"):
        parse(IngestOptions, {"imager_rules": rules}, "here")


@pytest.mark.parametrize(
    "wrong",
    [{"split_by": "name"}, {"split_by": BY_HASH, "eval_share": 1.0}, {"max_quarantined": -0.1}, {"max_pixels": 0}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=str(next(reversed(wrong.values())))):
        parse(IngestOptions, wrong, "here")


def test_the_plate_of_a_record_decides_its_drawn_split(make_example):
    options = IngestOptions(split_by=BY_HASH, eval_share=0.5)
    for plate in range(20):
        splits = set()
        for number in range(4):
            example = make_example(number, filename=f"{number}.jpg")
            example.features.feature[contract.PLATE].bytes_list.value.append(f"plate {plate}".encode())
            verdict = check_record(example.SerializeToString(), Tables(SOURCES), options)
            assert isinstance(verdict, Accepted)
            splits.add(verdict.split)
        assert len(splits) == 1


def test_a_plate_that_is_not_one_text_is_malformed(make_example):
    example = make_example(1)
    example.features.feature[contract.PLATE].int64_list.value.append(7)
    verdict = check_record(example.SerializeToString(), Tables(SOURCES), OPTIONS)
    assert isinstance(verdict, Rejected) and verdict.reason == contract.MALFORMED_FEATURE
    assert verdict.detail == "image/plate has 1 in int64_list, expected one in bytes_list"


def test_names_give_records_their_plate_and_split(make_example):
    options = IngestOptions(split_by=BY_HASH, eval_share=0.5)
    names = place_reader.NamedPlaces("(?P<plate>b[0-9]+)-")
    verdicts = {}
    for number in range(40):
        record = make_example(number, filename=f"b{number % 4}-{number}.jpg").SerializeToString()
        verdicts[number] = check_record(record, Tables(SOURCES, names=names), options)
        features = contract.parse_example(verdicts[number].data).features.feature
        assert contract.plate_of(features) == f"b{number % 4}"
    for plate in range(4):
        assert len({verdict.split for number, verdict in verdicts.items() if number % 4 == plate}) == 1
    # An image that is not named has no plate, whatever its name is.
    other = make_example(1, filename="03c3_G6_ImagerDefaults_6.jpg").SerializeToString()
    with_names, without = (check_record(other, Tables(SOURCES, names=n), options) for n in (names, None))
    assert contract.plate_of(contract.parse_example(with_names.data).features.feature) == ""
    assert with_names.data == without.data == other
    stated = contract.with_plate(make_example(1, filename="b1-1.jpg").SerializeToString(), "own")
    assert check_record(stated, Tables(SOURCES, names=names), options).data == stated
