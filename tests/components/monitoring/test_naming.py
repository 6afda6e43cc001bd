import pytest

from components.monitoring.measure import Naming, imager_name, parse_rules
from marco_data.place_reader import NamedPlaces


def test_an_explicit_imager_comes_first():
    naming = Naming(parse_rules(["rock/*=Rock", " Minstrel "]), institution="CSIRO")
    assert naming.of_file("rock/03c3_G6_ImagerDefaults_6.jpg") == "Rock"
    assert naming.of_file("other/1.jpg") == "Minstrel"
    assert naming.of_record("rock/1.jpg", "Merck", "Formulatrix Rock Imager") == "Rock"


@pytest.mark.parametrize(
    ("institution", "name", "expected"),
    [
        ("CSIRO", "03c3_G6_ImagerDefaults_6.jpg", "CSIRO / Formulatrix Rock Imager"),
        ("CSIRO", "C000001-A01a-201201.jpg", "CSIRO / Rigaku Minstrel"),
        ("", "03c3_G6_ImagerDefaults_6.jpg", "unknown"),
        ("Our lab", "1.jpg", "Our lab"),
    ],
)
def test_the_imager_follows_from_an_institutions_file_names(institution, name, expected):
    assert Naming(institution=institution).of_file(f"plate/{name}") == expected


def test_a_record_names_its_own_imager():
    assert Naming().of_record("1.jpg", "Merck", "Formulatrix Rock Imager") == "Merck / Formulatrix Rock Imager"
    assert Naming().of_record("03c3_G6_ImagerDefaults_6.jpg", "Merck", "") == "Merck / Formulatrix Rock Imager"
    assert imager_name("source 3", "unknown") == "unknown"


def test_names_tell_the_light_of_images_apart():
    naming = Naming(institution="Lab", names=NamedPlaces("(?P<plate>[^_]+)_(?P<light>[A-Za-z]+)"))
    assert naming.of_file("p_UV.jpg", "/in/p_UV.jpg") == "Lab, UV"
    assert [naming.of_record(f"p_{light}.jpg", "Lab", "") for light in ("VIS", "bright", "shg")] == [
        "Lab", "Lab, bright", "Lab, shg",
    ]  # fmt: skip
    assert Naming(institution="Lab").of_file("p_UV.jpg", "/in/p_UV.jpg") == "Lab"
