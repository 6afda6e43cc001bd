import io

import pytest
from PIL import Image

from components.monitoring.measure import Candidate, _row


@pytest.mark.parametrize(
    ("size", "shown"), [((2000, 4), (576, 144)), ((4, 2000), (144, 576)), ((640, 480), (192, 144))]
)
def test_the_thumbnail_of_a_strip_shows_its_middle(size, shown):
    png = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(png, "PNG")
    row = _row(Candidate(0, b"a.png", -1, "Lab", "a.png"), 0, png.getvalue())
    assert row["reason"] == ""
    assert Image.open(io.BytesIO(row["thumbnail"])).size == shown
