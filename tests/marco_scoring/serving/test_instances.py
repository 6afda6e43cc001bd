import base64
import io
import re
import textwrap
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import pytest
from PIL import Image as Pillow

from marco_scoring.serving import classify
from marco_scoring.serving.classify import Image, Refused, from_base64, from_bytes, from_json

LIMITS = classify.Limits(max_image_mb=2, max_pixels=5000)


@pytest.fixture(autouse=True, scope="module")
def small_unit():
    """Images of 2000 bytes are the largest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "MEBIBYTE", 1000)
        yield


def picture(width=60, height=80, kind="JPEG"):
    buffer = io.BytesIO()
    Pillow.new("RGB", (width, height), (90, 100, 110)).save(buffer, kind)
    return buffer.getvalue()


def b64(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("wrap", [lambda text: {"b64": text}, lambda text: {"image_bytes": {"b64": text}}])
def test_images_in_both_forms(kind, wrap):
    encoded = picture(kind=kind)
    assert from_json(wrap(b64(encoded)), LIMITS) == Image(encoded, 60 * 80)


def test_base64_as_the_shell_writes_it_and_without_padding():
    encoded = picture()
    assert from_base64("\n".join(textwrap.wrap(b64(encoded), 76)) + "\n", LIMITS) == Image(encoded, 4800)
    assert from_base64(b64(encoded + b"xy").rstrip("="), LIMITS) == Image(encoded + b"xy", 4800)


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ({"b64": ""}, "empty"),
        ({"b64": " \n"}, "empty"),
        ({"b64": "@@@@"}, "not base64"),
        ({"b64": "a"}, "not base64"),
        ({"b64": "köl"}, "not base64"),
        ({"b64": b64(b"GIF89a" + bytes(50))}, "neither a JPEG nor a PNG: starts with 47 49 46"),
        ({"b64": b64(picture()[:20])}, "neither a JPEG nor a PNG: a JPEG without a frame header"),
        ({"b64": b64(picture(100, 51))}, "100x51 pixels, at most 5000 allowed"),
        ({"b64": b64(picture() + bytes(2000))}, r"an image of \d+ bytes, at most 2000 allowed"),
        ({"b64": "A" * 100_000}, "an image of 75000 bytes, at most 2000 allowed"),
        ({"b64": 5}, "got an object with 'b64'"),
        ({"image_bytes": "abcd"}, "got an object with 'image_bytes'"),
        ({"b64": "", "key": 1}, "got an object with 'b64', 'key'"),
        ({}, "got an object with nothing"),
        ("abcd", "got a string"),
        ([1, 2], "got a list"),
        (True, "got a truth value"),
        (1.5, "got a number"),
        (None, "got null"),
    ],
)
def test_an_instance_without_an_image_is_refused_in_one_line(instance, reason):
    refused = from_json(instance, LIMITS)
    assert isinstance(refused, Refused)
    assert "\n" not in refused.reason
    assert re.search(reason, refused.reason), refused.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text() | st.sampled_from(["b64", "image_bytes"]), part),
    max_leaves=5,
)


@hypothesis.given(JSON)
@hypothesis.settings(deadline=None)
def test_any_other_json_value_is_refused(instance):
    assert isinstance(from_json(instance, LIMITS), Refused)


@hypothesis.given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"])
)
@hypothesis.settings(deadline=None)
def test_bytes_are_an_image_within_limits_or_refused(noise, start):
    image = from_bytes(start + noise, LIMITS)
    assert isinstance(image, Refused) or 1 <= image.pixels <= 5000


def test_white_space_in_base64_costs_no_more_memory_than_a_few_copies():
    """40 MB of it took a gigabyte."""
    text = "AA " * 13_000
    tracemalloc.start()
    try:
        assert isinstance(from_base64(text, classify.Limits()), Refused)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(text)
    finally:
        tracemalloc.stop()
