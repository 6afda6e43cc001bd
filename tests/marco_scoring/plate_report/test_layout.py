import pytest
from hypothesis import given, strategies as st

from marco_scoring.plates import FORMATS, Format, Position, plate_format, position, row_names, well_name

NINETY_SIX = Format(8, 12)
positions = st.builds(Position, st.integers(0, 31), st.integers(0, 47))


@pytest.mark.parametrize(
    ("well", "expected"),
    [
        ("A1", (0, 0)),
        ("g06", (6, 5)),
        ("H12", (7, 11)),
        ("P24", (15, 23)),
        ("AF48", (31, 47)),
        ("0001", (0, 0)),
        ("0049", (1, 0)),
        ("1536", (31, 47)),
        ("0000", None),
        ("1537", None),
        ("A0", None),
        ("A49", None),
        ("AG1", None),
        ("", None),
        ("12", None),
    ],
)
def test_a_well_has_a_row_and_a_column(well, expected):
    assert position(well) == expected


@given(positions)
def test_names_and_positions_are_each_others_inverse(where):
    assert position(well_name(where)) == where
    assert position(f"{where.row * 48 + where.column + 1:04d}") == where


@pytest.mark.parametrize("plate", FORMATS)
def test_a_whole_plate_is_recognised(plate):
    wells = [Position(row, column) for row in range(plate.rows) for column in range(plate.columns)]
    assert plate_format(wells) == plate
    assert len(row_names(plate)) == len(set(row_names(plate))) == plate.rows


def test_few_wells_are_of_a_plate_of_96():
    assert plate_format([]) == plate_format([Position(0, 0)]) == NINETY_SIX
    assert plate_format([Position(0, column) for column in range(6)]) == NINETY_SIX
    assert plate_format([Position(8, 0)]) == Format(16, 24)
    with pytest.raises(ValueError, match="row 33"):
        plate_format([Position(32, 0)])


@given(st.sets(positions, min_size=1, max_size=60))
def test_the_plate_has_every_well_and_no_smaller_one_of_96_or_more_does(wells):
    found = plate_format(wells)

    def holds(plate):
        return all(well.row < plate.rows and well.column < plate.columns for well in wells)

    assert holds(found)
    larger = [plate for plate in FORMATS if plate >= NINETY_SIX and holds(plate)]
    assert found == larger[0] or (found < NINETY_SIX and len(wells) * 2 >= found.rows * found.columns)
