import logging

import pytest

from components import beam_log


def test_errors_are_logged_again_afterwards(caplog):
    logger = logging.getLogger("apache_beam.runners")
    with pytest.raises(OSError, match="broke"), beam_log.errors_raised_only():
        logger.error("it broke")
        raise OSError("broke")
    assert not caplog.records
    logger.error("it broke later")
    assert [record.message for record in caplog.records] == ["it broke later"]
