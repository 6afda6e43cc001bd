"""The framing reader against TensorFlow's own writer and reader, and against every kind of damage."""

import gzip
import io
import struct
import zlib

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf
from PIL import Image

from marco_data import tfrecord
from marco_data.tfrecord import Record, Rest, frame, read_records

COMPRESSIONS = ("", "ZLIB", "GZIP")
RECORDS = st.lists(st.binary(max_size=300), max_size=8)
# Files on disk do not change between examples in a way that a shared folder could spoil.
HERE = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=60
)


def read(content):
    """Returns the results, with the bytes of a rest joined."""
    found = []
    for item in read_records(io.BytesIO(content)):
        found.append(item if isinstance(item, Record) else (item, b"".join(item.chunks)))
    return found


@HERE
@hypothesis.given(records=RECORDS, compression=st.sampled_from(COMPRESSIONS))
def test_reads_what_tensorflow_wrote(tmp_path, records, compression):
    path = tmp_path / "shard"
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    found = read(path.read_bytes())
    assert [record.data for record in found] == records
    assert all(record.intact for record in found)
    offset = 0
    for index, record in enumerate(found):
        assert (record.index, record.offset) == (index, offset)
        offset += 12 + len(record.data) + 4


@HERE
@hypothesis.given(records=RECORDS)
def test_tensorflow_reads_what_was_framed(tmp_path, records):
    path = tmp_path / "shard"
    path.write_bytes(b"".join(map(frame, records)))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == records


@st.composite
def damaged(draw):
    """A shard with bytes flipped, dropped, inserted or cut off, and its original records."""
    records = draw(RECORDS)
    content = b"".join(map(frame, records))
    compression = draw(st.sampled_from(COMPRESSIONS))
    if compression:
        content = zlib.compress(content) if compression == "ZLIB" else gzip.compress(content)
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(("flip", "drop", "insert", "cut")))
        if kind == "flip":
            content = content[:position] + bytes(
                byte ^ draw(st.integers(1, 255)) for byte in content[position : position + 1]
            ) + content[position + 1 :]  # fmt: skip
        elif kind == "drop":
            content = content[:position] + content[position + draw(st.integers(1, 20)) :]
        elif kind == "insert":
            content = content[:position] + draw(st.binary(min_size=1, max_size=20)) + content[position:]
        else:
            content = content[:position]
    return records, compression, content


@HERE
@hypothesis.given(case=damaged())
def test_damage_never_raises_and_every_byte_is_accounted_for(case):
    records, compression, content = case
    found = read(content)
    rests = [item for item in found if isinstance(item, tuple)]
    assert rests == found[-1:] if rests else True
    intact = [item for item in found if isinstance(item, Record)]
    assert [record.index for record in intact] == list(range(len(intact)))
    assert all(record.data in records for record in intact if record.intact)
    if not compression:
        framed = sum(len(record.data) + 16 for record in intact)
        assert framed + sum(len(data) for _, data in rests) == len(content)
        assert all(rest.offset == framed for rest, _ in rests)


@HERE
@hypothesis.given(records=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8), data=st.data())
def test_a_flipped_data_byte_loses_that_record_alone(records, data):
    victim = data.draw(st.integers(0, len(records) - 1))
    framed = [frame(record) for record in records]
    position = 12 + data.draw(st.integers(0, len(records[victim]) - 1))
    damaged_record = bytearray(framed[victim])
    damaged_record[position] ^= data.draw(st.integers(1, 255))
    framed[victim] = bytes(damaged_record)
    found = read(b"".join(framed))
    assert [record.intact for record in found] == [index != victim for index in range(len(records))]
    assert [record.data for record in found if record.intact] == records[:victim] + records[victim + 1 :]
    assert found[victim].data == framed[victim][12:-4]


@HERE
@hypothesis.given(records=st.lists(st.binary(max_size=300), min_size=1, max_size=8), data=st.data())
def test_a_flipped_length_byte_loses_the_rest_and_its_start_is_reported(records, data):
    victim = data.draw(st.integers(0, len(records) - 1))
    framed = [frame(record) for record in records]
    damaged_record = bytearray(framed[victim])
    damaged_record[data.draw(st.integers(0, 11))] ^= data.draw(st.integers(1, 255))
    framed[victim] = bytes(damaged_record)
    *before, (rest, content) = read(b"".join(framed))
    assert [record.data for record in before] == records[:victim]
    # A broken header at the very start may look like a compressed stream; reading it as one fails.
    assert rest.reason == tfrecord.BAD_LENGTH or (victim == 0 and rest.reason == tfrecord.BAD_COMPRESSION)
    assert (rest.index, rest.offset) == (victim, len(b"".join(framed[:victim])))
    if rest.reason == tfrecord.BAD_LENGTH:
        assert content == b"".join(framed[victim:])


def test_an_impossible_length_is_a_bad_length():
    length = struct.pack("<Q", 1 << 40)
    content = length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"short"
    ((rest, data),) = read(content)
    assert isinstance(rest, Rest) and rest.reason == tfrecord.BAD_LENGTH
    assert data == content


@pytest.mark.parametrize("kept", [1, 11, 12, 20, 115])
def test_a_shard_cut_short_is_truncated(kept):
    content = frame(b"first") + frame(b"x" * 100)[:kept]
    record, (rest, data) = read(content)
    assert record.data == b"first"
    assert (rest.reason, rest.offset, data) == (tfrecord.TRUNCATED_SHARD, 21, content[21:])


def test_a_compressed_stream_that_ends_between_records_is_reported_as_truncated():
    compressor = zlib.compressobj()
    content = compressor.compress(frame(b"first")) + compressor.flush(zlib.Z_FULL_FLUSH)
    record, (rest, _) = read(content)
    assert record.data == b"first"
    assert rest.reason == tfrecord.BAD_COMPRESSION


def test_a_length_whose_bytes_look_like_zlib_is_not_decompressed():
    record = bytes(0x9C78)
    assert frame(record)[:2] == b"\x78\x9c"
    assert [found.data for found in read(frame(record))] == [record]


def test_gzip_files_joined_are_one_stream():
    content = gzip.compress(frame(b"first")) + gzip.compress(frame(b"second")) + bytes(7)
    assert [record.data for record in read(content)] == [b"first", b"second"]


def test_a_compression_bomb_is_read_in_bounded_memory():
    """A hundred megabytes of zeros in a hundred kilobytes: the broken frame is reported before the rest is inflated."""
    compressor = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    content = b"".join(compressor.compress(zeros) for _ in range(100)) + compressor.flush()
    (rest,) = read_records(io.BytesIO(content))
    assert rest.reason == tfrecord.BAD_LENGTH
    assert max(map(len, rest.chunks)) <= 1 << 20


@pytest.mark.parametrize("wbits", [tfrecord.ZLIB_WBITS, tfrecord.GZIP_WBITS])
@pytest.mark.parametrize("sound", [True, False], ids=["of sound records", "of one broken record"])
def test_a_compressed_shard_inflates_to_a_bounded_size(monkeypatch, wbits, sound):
    monkeypatch.setattr(tfrecord, "MAX_RECORD_BYTES", 1 << 22)
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    zeros = tfrecord.frame(bytes(1 << 20)) if sound else bytes(1 << 20)
    content = b"".join(compressor.compress(zeros) for _ in range(256)) + compressor.flush()
    *records, rest = read_records(io.BytesIO(content))
    assert rest.reason == (tfrecord.BAD_COMPRESSION if sound else tfrecord.BAD_LENGTH)
    size = sum(len(record.data) for record in records) + sum(map(len, rest.chunks))
    assert size <= (1 << 22) + tfrecord.MAX_RATIO * len(content) + (2 << 20)
    assert "inflates to more than 100 times its size" in rest.detail or not sound


def test_images_compress_far_less_than_a_bomb(real_images):
    """What a shard of images may inflate to: blank PNGs compress best."""
    blank = io.BytesIO()
    Image.new("RGB", (2560, 1920), "white").save(blank, "PNG")
    for encoded in (blank.getvalue(), *(path.read_bytes() for path in real_images.values())):
        assert len(encoded) < tfrecord.MAX_RATIO * len(zlib.compress(encoded, 9))
