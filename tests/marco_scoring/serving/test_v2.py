import base64
import json
import struct

import numpy as np
import pytest

from marco_scoring.serving import protocols
from marco_scoring.serving.classify import Image, Limits, Refused, RequestError, Scored

CLASSES = ("Clear", "Crystals")


@pytest.fixture
def image(real_images):
    return real_images["clear_220.jpeg"].read_bytes()


def request(data, shape=None, **changes):
    tensor = {"name": "image_bytes", "shape": shape or [len(data)], "datatype": "BYTES", "data": data}
    return {"inputs": [{**tensor, **changes}]}


def binary(*elements):
    tail = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    body = request([], [len(elements)], parameters={"binary_data_size": len(tail)})
    del body["inputs"][0]["data"]
    head = json.dumps(body).encode()
    return head + tail, str(len(head))


@pytest.mark.parametrize("nested", [False, True])
def test_base64_strings_in_json(image, nested):
    text = base64.b64encode(image).decode()
    data = [[text], ["@"]] if nested else [text, "@"]
    read = protocols.read_v2({**request(data, [2, 1] if nested else [2]), "id": "q"}, Limits())
    assert (read.id, read.outputs) == ("q", ())
    assert read.images[0] == Image(image, 1280 * 960)
    assert isinstance(read.images[1], Refused)


def test_images_themselves_behind_the_json(image):
    read = protocols.read_v2_binary(*binary(image, b"", b"no image"), Limits())
    assert read.images[0] == Image(image, 1280 * 960)
    assert [type(image) for image in read.images[1:]] == [Refused, Refused]
    plain = json.dumps(request([base64.b64encode(image).decode()])).encode()
    assert protocols.read_v2_binary(plain, None, Limits()).images == [Image(image, 1280 * 960)]


def test_tensors_have_one_row_per_image_and_errors_for_the_refused():
    scored = Scored(np.float32([0.25, 0.75]), np.float32([0.5, 0.5]), "v7")
    read = protocols.read_v2(request(["", ""]), Limits())
    tensors = protocols.v2_response(read, [Refused("empty"), scored], CLASSES)
    assert {tensor["name"]: (tensor["datatype"], tensor["shape"], tensor["data"]) for tensor in tensors} == {
        "scores": ("FP32", [2, 2], [0.0, 0.0, 0.25, 0.75]),
        "classes": ("BYTES", [2, 2], ["Clear", "Crystals"] * 2),
        "class": ("BYTES", [2], ["", "Crystals"]),
        "probabilities": ("FP32", [2, 2], [0.0, 0.0, 0.5, 0.5]),
        "version": ("BYTES", [2], ["", "v7"]),
        "novelty": ("FP32", [2], [0.0, 0.0]),
        "error": ("BYTES", [2], ["empty", ""]),
    }


def test_only_requested_outputs_are_returned_and_error_always():
    read = protocols.read_v2({**request([""]), "outputs": [{"name": "class"}]}, Limits())
    assert [tensor["name"] for tensor in protocols.v2_response(read, [Refused("empty")], CLASSES)] == [
        "class",
        "error",
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"inputs": request([""])["inputs"] * 2}, "inputs"),
        (request([""], name="image"), "'image' of 'BYTES'"),
        (request([1.0], datatype="FP32"), "'FP32'"),
        (request("abc"), 'no list of "data"'),
        (request([""], [2]), "shape"),
        (request([""], [-1]), "shape"),
        (request([""], [1, 1, 1]), "shape"),
        (request([""], [True]), "shape"),
        (request([""], "x"), "shape"),
        (request([""], [0.5]), "shape"),
        (request([], [0]), "0 images"),
        (request([""] * 4), "4 images in a request; from 1 to 3"),
        ({**request([""]), "id": 5}, "id"),
        ({**request([""]), "outputs": [{"name": "logits"}]}, "logits"),
        ({**request([""]), "outputs": 5}, "outputs"),
        (request([""], parameters={"binary_data_size": 7}), "binary_data_size is 7, and 0 bytes follow"),
        (request([""], parameters={"binary_data_size": "x"}), "binary_data_size is x"),
    ],
)
def test_a_malformed_request_is_refused_as_a_whole(body, message):
    with pytest.raises(RequestError, match=message):
        protocols.read_v2(body, Limits(max_instances=3))


@pytest.mark.parametrize("length", ["", "-1", "x", "99999999", "9" * 5000, "²"])
def test_an_impossible_length_is_refused(length):
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        protocols.read_v2_binary(b"{}", length, Limits())


def test_binary_data_that_ends_too_early_is_refused():
    for tail in (b"\x01", struct.pack("<I", 9) + b"four", struct.pack("<I", 0xFFFFFFFF)):
        body = request([], [1], parameters={"binary_data_size": len(tail)})
        with pytest.raises(RequestError, match="ends within an element"):
            protocols.read_v2(body, Limits(), tail)


def test_binary_data_of_very_many_elements_is_not_split_to_its_end():
    body, length = binary(*[b""] * 100_000)
    with pytest.raises(RequestError, match="129 images in a request"):
        protocols.read_v2_binary(body, length, Limits())


def test_a_side_that_no_float_holds_is_refused():
    with pytest.raises(RequestError, match="the tensor's shape is"):
        protocols.read_v2(request(["a"], [10**400, 1.5]), Limits())
