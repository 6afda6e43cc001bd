"""Label schemes: what each label stands for, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from marco_model.errors import InputError
from marco_model.labels import CLASSES, FOUR, HWMRI_TEN, TEN_CLASSES, LabelScheme, key, raw_scheme, with_entries

# As the columns of the scores that HWMRI's own classifier wrote (Cumbaa and Jurisica 2010; docs/labels.md).
COLUMNS = {
    "clear": "Clear",
    "crystal": "Crystals",
    "garbage": "Garbage",
    "phase": "Phase separation",
    "phase_crystal": "Phase separation and crystals",
    "phase_precip": "Phase separation and precipitate",
    "precip": "Precipitate",
    "precip_crystal": "Precipitate and crystals",
    "precip_skin": "Precipitate and skin",
    "skin": "Skin",
}
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


def test_the_four_way_scheme_is_marcos_own():
    assert FOUR.classes == CLASSES
    assert [FOUR.index_of(name) for name in CLASSES] == [0, 1, 2, 3]


def test_the_ten_way_scheme_takes_every_known_spelling():
    assert sorted(COLUMNS.values()) == list(HWMRI_TEN.classes) == list(TEN_CLASSES)
    for spelled, name in COLUMNS.items():
        index = HWMRI_TEN.classes.index(name)
        for text in (spelled, spelled.upper(), name, name.replace(" and ", " & "), name.replace(" and ", "/")):
            assert HWMRI_TEN.index_of(text, 99) == index
    assert HWMRI_TEN.index_of("Junk") == HWMRI_TEN.classes.index("Garbage")
    assert HWMRI_TEN.index_of("Skin effect") == HWMRI_TEN.classes.index("Skin")
    with pytest.raises(KeyError):
        HWMRI_TEN.index_of("unsure")


@pytest.mark.parametrize(("name", "other"), [
    ("Phase separation & crystal", "phase_separation  crystal"), ("Precip and skin", "PRECIP/SKIN"), ("07", "7"),
    ("Schlieren (grün)", "schlieren, grün"),
])  # fmt: skip
def test_names_that_differ_in_case_punctuation_or_the_word_and_are_the_same(name, other):
    assert key(name) == key(other)


@pytest.mark.parametrize(("name", "other"), [("sand", "s"), ("7", "label 7"), ("+", "-"), ("a1", "a 1"), ("-1", "1")])
def test_names_that_differ_otherwise_are_not_the_same(name, other):
    assert key(name) != key(other)


def test_a_number_precedes_a_name_and_a_class_needs_no_entry():
    scheme = LabelScheme("mine", ("Hit", "Miss"), table={"12": "miss", "needles": "Hit", "dark": None})
    assert scheme.index_of("needles", 3) == 0
    assert scheme.index_of("needles", 12) == 1
    assert scheme.index_of("HIT", 4) == 0
    assert scheme.index_of("dark", 5) is None
    with pytest.raises(KeyError):
        scheme.index_of("plates", 6)
    with pytest.raises(KeyError):
        scheme.index_of(None, 7)
    assert not scheme.goes_by_names
    generous = LabelScheme("mine", ("Hit", "Miss"), table={"needles": "Hit"}, others="leave_out")
    assert generous.index_of("plates", 6) is None
    assert generous.goes_by_names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ("Hit",)}, r"labels\.classes is \['Hit'\]; name at least two"),
        ({"classes": ("Hit", "hit ")}, "'hit '; give a name on one line"),
        ({"classes": ("Hit", "")}, "''; give a name"),
        ({"classes": ("Hit", "a\nb")}, "give a name on one line"),
        ({"classes": ("A & B", "a_b")}, "'A & B' and 'a_b', which count as one"),
        ({"classes": ("Hit", "Miss"), "table": {"a": "Mis"}}, "'a' stands for 'Mis'; the classes are Hit, Miss"),
        ({"classes": ("Hit", "Miss"), "table": {"a": "Hit", "A!": None}}, "'a' and 'A!', which count as one"),
        ({"classes": ("Hit", "Miss"), "table": {"3": "Hit", "03": None}}, "'3' and '03', which count as one"),
        (
            {"classes": ("Hit", "Miss"), "source": "class", "table": {"Crystal": "Hit"}},
            "'Crystal'; MARCO's classes are Clear, Crystals",
        ),
    ],
)
def test_a_scheme_that_contradicts_itself_is_reported_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        LabelScheme("mine", **arguments)
    assert "\n" not in str(error.value)


def test_entries_are_added_to_a_scheme_or_replace_its_own():
    scheme = with_entries(HWMRI_TEN, {"Unsure": None, "JUNK": "Skin"}, "quarantine")
    assert scheme.index_of("unsure") is None
    assert scheme.classes[scheme.index_of("junk")] == "Skin"
    assert scheme.classes[scheme.index_of("garbage")] == "Garbage"


def test_raw_labels_are_classes_unless_they_are_merged_renamed_or_left_out():
    raw = {5: "needles", 2: "Clear", 7: "clear", 9: "light precipitate", 11: "heavy precipitate", 12: "dark"}
    assert raw_scheme(raw, {}).classes == ("Clear", "needles", "light precipitate", "heavy precipitate", "dark")
    assert raw_scheme(raw, {}).index_of("clear", 7) == 0
    table = {"9": "Precipitate", "heavy precipitate": "precipitate", "dark": None}
    scheme = raw_scheme(raw, table)
    assert scheme.classes == ("Clear", "needles", "Precipitate")
    assert [scheme.index_of(name, number) for number, name in sorted(raw.items())] == [0, 1, 0, 2, 2, None]
    with pytest.raises(KeyError):
        scheme.index_of(None, 40)
    with pytest.raises(InputError, match="'plates', which is not a raw label"):
        raw_scheme(raw, {"plates": None})
    with pytest.raises(InputError, match="'dark' and 'Dark', which count as one"):
        raw_scheme(raw, {"dark": None, "Dark": "clear"})


@hypothesis.given(
    classes=st.lists(NAMES, min_size=2, max_size=6, unique_by=key),
    labels=st.lists(NAMES, max_size=8, unique_by=key),
    data=st.data(),
)
def test_any_table_maps_as_written_and_survives_serialization(classes, labels, data):
    table = {label: data.draw(st.sampled_from([*classes, None])) for label in labels}
    scheme = LabelScheme("any", tuple(classes), table=table)
    adapter = pydantic.TypeAdapter(LabelScheme)
    assert adapter.validate_json(adapter.dump_json(scheme)) == scheme
    for label, name in table.items():
        assert scheme.index_of(label) == (None if name is None else classes.index(name))
    for index, name in enumerate(classes):
        if key(name) not in map(key, labels):
            assert scheme.index_of(name) == index
