import pytest

from components.monitoring.two_sample import Limits, read_limits
from marco_model.errors import InputError


def test_limits_that_are_left_out_keep_their_defaults(tmp_path):
    (tmp_path / "limits.json").write_text('{"classes": 0.3, "least": 20}')
    assert read_limits(tmp_path / "limits.json") == Limits(classes=0.3, least=20)
    assert read_limits(None) == Limits()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"brightness": 0.1}', "limits.json: unknown key 'brightness'"),
        ("[1]", "limits.json: the content is \\[1\\]; it must be a valid dictionary"),
        ("{", "is not a JSON object of limits"),
        ('{"alpha": 2}', "alpha is 2; it must be less than 1"),
        ('{"statistic": "0.1"}', "statistic is '0.1'; it must be a valid number"),
        ('{"least": 5000}', "limits least 5000 and most 1000"),
    ],
)
def test_a_wrong_limit_is_refused(tmp_path, text, reason):
    (tmp_path / "limits.json").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_limits(tmp_path / "limits.json")
