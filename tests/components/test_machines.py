import hypothesis
import hypothesis.strategies as st
import pytest
from kubernetes.utils.quantity import parse_quantity

from components.machines import Replicas, Resources, quantity_bytes
from components.settings import parse
from marco_model.errors import InputError


@hypothesis.given(
    st.one_of(st.integers(1, 10**6), st.integers(1, 10**4).map(lambda tenths: tenths / 10)),
    st.sampled_from(["", "Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"]),
)
def test_quantities_are_read_as_kubernetes_client_reads_them(number, unit):
    assert quantity_bytes(f"{number}{unit}") == round(parse_quantity(f"{number}{unit}"))


@pytest.mark.parametrize("text", ["", "8 Gi", "8GiB", "-1", "1e3", "lots"])
def test_a_wrong_quantity_is_refused_by_its_name(text):
    with pytest.raises(ValueError, match="is not a quantity of memory; write it as 8Gi"):
        quantity_bytes(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": 0}, "cpu is 0; it must be greater than 0"),
        ({"accelerators": -1}, "accelerators is -1; it must be greater than or equal to 0"),
        ({"memory": "much"}, "'much' is not a quantity"),
        ({"shared_memory": "much"}, "'much' is not a quantity"),
    ],
)
def test_resources_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        parse(Resources, change, "here")


def test_a_training_without_workers_is_refused():
    with pytest.raises(InputError, match=r"cluster\.replicas\.workers is 0"):
        parse(Replicas, {"workers": 0}, "here", "cluster.replicas")
