import pytest

from marco_model.errors import InputError
from marco_scoring.serving.protocols import VertexContainer, vertex_container


def test_variables_of_vertex_ai():
    variables = {
        "AIP_HTTP_PORT": "8080",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/12/deployedModels/34:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/12/deployedModels/34",
        "AIP_STORAGE_URI": "gs://bucket/model",
        "AIP_MODE": "PREDICTION",
    }
    assert vertex_container(variables) == VertexContainer(
        8080, "/v1/endpoints/12/deployedModels/34:predict", "/v1/endpoints/12/deployedModels/34", "gs://bucket/model"
    )


def test_without_variables_everything_is_none():
    assert vertex_container({"PATH": "/bin", "AIP_STORAGE_URI": ""}) == VertexContainer(None, None, None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIP_HTTP_PORT", "http"),
        ("AIP_HTTP_PORT", "0"),
        ("AIP_HTTP_PORT", "65536"),
        ("AIP_PREDICT_ROUTE", "predict"),
        ("AIP_HEALTH_ROUTE", "/{name}"),
    ],
)
def test_a_variable_without_sense_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        vertex_container({name: value})
