import logging

import pytest

from components.example_gen import files


def test_errors_are_logged_again_afterwards(caplog):
    logger = logging.getLogger("apache_beam.runners")
    with pytest.raises(OSError, match="broke"), files.errors_raised_only():
        logger.error("it broke")
        raise OSError("broke")
    assert not caplog.records
    logger.error("it broke later")
    assert [record.message for record in caplog.records] == ["it broke later"]
