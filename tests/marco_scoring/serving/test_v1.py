import json

import numpy as np
import pytest

from marco_scoring.serving import protocols
from marco_scoring.serving.classify import Limits, Refused, RequestError, Scored

CLASSES = ("Clear", "Crystals")


def test_an_instance_has_what_the_saved_model_gives_or_an_error():
    scored = Scored(np.float32([0.25, 0.75]), np.float32([0.4, 0.6]))
    answer = protocols.v1_response([scored, Refused("empty")], CLASSES, "v7")
    assert json.loads(json.dumps(answer)) == {
        "predictions": [
            {
                "scores": [0.25, 0.75],
                "classes": ["Clear", "Crystals"],
                "class": "Crystals",
                "probabilities": pytest.approx([0.4, 0.6]),
                "version": "v7",
            },
            {"error": "empty"},
        ]
    }


@pytest.mark.parametrize("extra", [{}, {"parameters": {"x": 1}}, {"signature_name": "serving_default"}])
def test_instances_are_read_each_by_itself(extra):
    assert [type(one) for one in protocols.v1_images({"instances": [1, {"b64": ""}], **extra}, Limits())] == [
        Refused,
        Refused,
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "instances"),
        ([1], "instances"),
        ({}, "instances"),
        ({"instances": {"b64": ""}}, "instances"),
        ({"instances": []}, "0 images in a request; from 1 to 3"),
        ({"instances": [1] * 4}, "4 images in a request; from 1 to 3"),
        ({"instances": [1], "signature_name": "serving_examples"}, "serving_examples"),
    ],
)
def test_a_malformed_request_is_refused_as_a_whole(body, message):
    with pytest.raises(RequestError, match=message) as refused:
        protocols.v1_images(body, Limits(max_instances=3))
    assert refused.value.status == 400


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[1" + b"0" * 5000 + b"]"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(RequestError, match="not JSON"):
        protocols.parse_json(text)
