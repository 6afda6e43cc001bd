"""Places by the paths of files: every convention, generated; names that mean nothing; plates of one name."""

import datetime
import string
import uuid
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from marco_data.places import ROWS, Place, from_parts, main_images, place_of, plate_group


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("03c3_G6_ImagerDefaults_6.jpg", Place("03c3", "G6", "", "6")),
        ("03c3_AF48-2_ImagerDefaults_12.JPG", Place("03c3", "AF48", "2", "12")),
        ("X0000056450155200509052032.png", Place("X000005645", "0155", "", "", "2005-09-05T20:32")),
        ("X0000056450155200509052032-uvt.png", Place("X000005645", "0155", "", "", "2005-09-05T20:32", "uvt")),
        ("X0000056450155200513052032.png", Place("X000005645", "0155")),
        ("03c3_g6_2026-03-02.jpg", Place("03c3", "g6", "", "", "2026-03-02")),
        ("03c3_G6-2_2026-03-02T1430.tif", Place("03c3", "G6", "2", "", "2026-03-02T14:30")),
        ("03c3_G6-2_20260302-14-30-59_VIS 2.tif", Place("03c3", "G6", "2", "", "2026-03-02T14:30", "VIS")),
        ("03c3_G6_20260302_1430.jpg", Place("03c3", "G6", "", "", "2026-03-02T14:30")),
        ("03c3_G6_20260302_7.jpg", Place("03c3", "G6", "", "", "2026-03-02")),
        ("03c3_G6_20261302_7.jpg", Place("03c3", "G6", "", "7")),
        ("03c3_G6_2026-02-30.jpg", Place()),
        ("C000012-A01a-201203.jpg", Place()),
        ("crystals_10.jpeg", Place()),
        ("", Place()),
        ("Copy of 03c3_G6_ImagerDefaults_6 (1).jpg", Place("03c3", "G6", "", "6")),
        ("JSG_0012_A1_ImagerDefaults_6.jpg", Place("JSG_0012", "A1", "", "6")),
        ("03c3_A1-1_Imager Defaults_UV_3.jpg", Place("03c3", "A1", "1", "3", "", "UV")),
        (
            "MC100341/4/RMM3_01_328_ROBO_Test1_Clon1_MC_0000MC100341_004_100716_01_06_01_00_99_030_001_RDI.jpg",
            Place("MC100341", "A6", "1", "4", "2010-07-16"),
        ),
        (
            "x/90j8_2018-04-11_RI1000-0081-2drop/90j8_01A_2.jpg",
            Place("90j8", "A1", "2", "", "2018-04-11", "", "x"),
        ),
        ("90j8_12H_2.jpg", Place("90j8", "H12", "2")),
        ("03c3_G6_VIS_7.jpg", Place("03c3", "G6", "", "7", light="VIS")),
        ("03c3_G6_1_1.jpg", Place()),
        ("03c3_G6_12_7.jpg", Place()),
        ("03c3_G6-2_12_7.jpg", Place("03c3", "G6", "2", "7")),
        ("03c3/A01_1.jpg", Place("03c3", "A01", "1", by_folder=True)),
        ("in/plate 7/day 3/UV/A01.jpg", Place("plate 7", "A01", "", "3", "", "UV", "in", True)),
        ("plate1/2026-03-02/Crystals/H12-2.png", Place("plate1", "H12", "2", "", "2026-03-02", "", "", True)),
        ("C:\\drops\\x7\\A01.jpg", Place("x7", "A01", folder="C:/drops", by_folder=True)),
        ("plate1_A01.jpg", Place("plate1", "A01")),
        ("in/beta/beta_B02_1.jpg", Place("beta", "B02", "1", folder="in")),
        (
            "/dls/mx/data/nt1-2/imaging/12345/678/91011.jpg",
            Place("12345", "", "", "678", folder="dls/mx/data/nt1-2"),
        ),
    ],
)
def test_a_path_is_read(path, place):
    assert place_of(path) == place


def storage(well, plate="1038", batch=102, drop=1, kind="ef"):
    return f"WellImages/38/plateID_{plate}/batchID_{batch}/wellNum_{well}/profileID_1/d{drop}_r498_{kind}.jpg"


@pytest.mark.parametrize(
    ("number", "wells", "well"),
    [(1, 96, "A1"), (12, 96, "A12"), (13, 96, "B1"), (96, 96, "H12"), (97, 96, "E1"), (13, 384, "A13"), (0, 96, "")],
)
def test_the_wells_of_rockmakers_storage_are_numbered_along_the_rows(number, wells, well):
    place = place_of(storage(number), wells)
    assert place == (Place("1038", well, "1", "102", "", "", "WellImages/38") if well else Place())


def test_thumbnails_and_slices_give_way_to_the_extended_focus():
    kinds = ("00", "01", "02", "ef", "th")
    whole = [Path(storage(1, kind=kind)) for kind in kinds]
    slices = [Path(storage(2, kind=kind)) for kind in kinds if kind != "ef"]
    thumbnail = Path(storage(3, kind="th"))
    others = [Path("imaging/5/6/7.jpg"), Path("imaging/5/6/7th.jpg"), Path("imaging/5/6/8th.jpg"), Path("x/9th.jpg")]
    kept = main_images([*whole, *slices, thumbnail, *others])
    assert kept == [whole[3], *slices[:3], thumbnail, others[0], *others[2:]]


CONVENTIONS = {
    "formulatrix": "{home}/{plate}_{well}-{drop}_ImagerDefaults_{inspection}.jpg",
    "dated": "{home}/{plate}_{well}-{drop}_{date:%Y-%m-%dT%H%M}_VIS.png",
    "minstrel": "{home}/RMM3_01_222_ROBO_Test1_Clon1_CI_0000{plate}_{inspection:03}_{date:%y%m%d}"
    "_{row:02}_{column:02}_{drop:02}_HF_99_030_001_RDI.jpg",
    "xchem": "{home}/{plate}_{date:%Y-%m-%d}_RI1000-0081-2drop/{plate}_{column:02}{letter}_{drop}.jpg",
    "storage": "{home}/plateID_{number}/batchID_{inspection}/wellNum_{well_number}/profileID_1/d{drop}_r498_ef.jpg",
    "compact storage": "{home}/plateID{number}/batchID_{inspection}/wellNum_{well_number}/profileID_3/d{drop}_r1_0.jpg",
    "folder": "{home}/{plate}/{letter}{column:02}_{drop}.tif",
    "folder and light": "{home}/{plate}/UV/{well}.jpg",
    "plate and well": "{home}/{plate}_{letter}{column:02}_{drop}.jpg",
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=40, deadline=None)
def test_all_wells_of_generated_trees_are_found(convention, data):
    number = data.draw(st.integers(1, 9999))
    plate = data.draw(st.from_regex(r"[1-9][a-z][0-9][a-z]", fullmatch=True))
    moment = data.draw(st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2068, 1, 1)))
    home = data.draw(st.sampled_from(["lab", "a/b c", "/store/x"]))
    inspection = data.draw(st.integers(1, 20))
    for well_number in range(1, 97):
        row, column = divmod(well_number - 1, 12)
        drop = well_number % 3 + 1
        letter = string.ascii_uppercase[row]
        path = CONVENTIONS[convention].format(
            home=home, plate=plate, number=number, well=f"{letter}{column + 1}", drop=drop, inspection=inspection,
            date=moment, row=row + 1, column=column + 1, letter=letter, well_number=well_number,
        )  # fmt: skip
        place = place_of(path)
        assert place.plate == (str(number) if "storage" in convention else plate), path
        assert place.well.replace("0", "") == f"{letter}{column + 1}".replace("0", ""), path
        if "{drop" in CONVENTIONS[convention]:
            assert place.drop == str(drop)
        if "{inspection" in CONVENTIONS[convention]:
            assert place.inspection == str(inspection)
        if "{date" in CONVENTIONS[convention]:
            assert place.date[:10] == f"{moment:%Y-%m-%d}"
        assert place.identity.startswith(home.strip("/"))


@pytest.mark.parametrize("drop", ["1", "9", "03", "12"])
@pytest.mark.parametrize(
    "form",
    [
        "pl/plate1_{well}_{drop}.jpg",
        "pl/plate1_{well}-{drop}.jpg",
        "pl/plate1/{well}_{drop}.jpg",
        "pl/plate1_{well}-{drop}_ImagerDefaults_6.jpg",
        "pl/plate1_{well}-{drop}_2026-03-02.jpg",
    ],
)
def test_all_wells_and_drops_of_a_plate_of_1536_are_read(form, drop):
    for well in (f"{row}{column:02}" for row in ROWS for column in range(1, 49)):
        path = form.format(well=well, drop=drop)
        assert place_of(path)[:3] == ("plate1", well, drop), path


def test_rows_that_stand_for_times_and_slices_need_a_drop():
    read = {row: place_of(f"plate1_{row}48.jpg").well for row in ROWS}
    assert read == {row: "" if row in tuple("QRSTUVWXYZ") else f"{row}48" for row in ROWS}


@hypothesis.given(
    st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2099, 12, 31)),
    st.sampled_from(
        ["{d:%Y-%m-%d}T{d:%H%M}", "{d:%Y%m%d}_{d:%H%M}", "{d:%Y%m%d}-{d:%Hh%Mm%Ss}", "{d:%Y-%m-%d}_{d:%H:%M}"]
    ),
    st.sampled_from(["", "_profile", "_profile_3", "_a-b_c d"]),
)
def test_every_date_is_read_back(moment, form, rest):
    written = form.format(d=moment)
    expected = moment.replace(second=0, microsecond=0).isoformat(timespec="minutes")
    assert place_of(f"03c3_H12-1_{written}{rest}.jpg").date == expected
    assert place_of(f"X0000056450155{moment:%Y%m%d%H%M}.png").date == expected


@hypothesis.given(st.text(max_size=60))
def test_any_name_is_read_without_an_error(name):
    for filename in (name, f"a_A1_{name}.jpg", f"a_A1_20260302{name}.jpg", f"plate/{name}/A01.jpg"):
        place = place_of(filename)
        assert not place.date or datetime.datetime.fromisoformat(place.date)


NUMBERS = (1, 7, 10, 23, 42, 99, 100, 1234)
MEANINGLESS = [
    *(f"IMG_{n:04}.jpg" for n in NUMBERS),
    *(f"IMG_{n:04}(1).jpg" for n in NUMBERS),
    *(f"IMG-20260302-WA{n:04}.jpg" for n in NUMBERS),
    *(f"IMG_20260302_1430{n % 60:02}.jpg" for n in NUMBERS),
    *(f"IMG_E{n:04}.HEIC.jpg" for n in NUMBERS),
    *(f"DSC{n:05}.JPG" for n in NUMBERS),
    *(f"DSCN{n:04}.JPG" for n in NUMBERS),
    *(f"DSC_{n:04}_edit_2.JPG" for n in NUMBERS),
    *(f"P{n:07}.JPG" for n in NUMBERS),
    *(f"PXL_20260302_143059{n:03}.jpg" for n in NUMBERS),
    *(f"Screenshot 2026-03-02 at 14.30.{n % 60:02}.png" for n in NUMBERS),
    *(f"Screenshot_2026-03-02-14-30-{n % 60:02}.png" for n in NUMBERS),
    *(f"image ({n}).png" for n in NUMBERS),
    *(f"image{n}.jpeg" for n in NUMBERS),
    *(f"{n}.jpg" for n in NUMBERS),
    *(f"crystals_{n}.jpeg" for n in NUMBERS),
    *(f"photo_{n}_final_2.png" for n in NUMBERS),
    *(f"Snap-{n}.tif" for n in NUMBERS),
    *(f"frame_{n:05}.png" for n in NUMBERS),
    *(f"Untitled-{n}.bmp" for n in NUMBERS),
    *(f"{uuid.UUID(int=n * 0xA1B2C3D4E5F60718293A4B5C6D7E)}.jpg" for n in NUMBERS),
    *(f"{uuid.UUID(int=n * 0xA1B2C3D4E5F60718293A4B5C6D7E).hex}.jpg" for n in NUMBERS),
    *(f"WhatsApp Image 2026-03-02 at 14.30.{n % 60:02}.jpeg" for n in NUMBERS),
    *(f"Capture_{n:05}.JPG" for n in NUMBERS),
    *(f"100_{n:04}.JPG" for n in NUMBERS),
    *(f"WIN_20260302_14_30_{n % 60:02}_Pro.jpg" for n in NUMBERS),
    *("crystal_A1_best.jpg", "IMG_A1_2_3.jpg", "Figure_S1_panel_2.png", "fig1_A2_crop_3.png", "photo_c4_edit_1.png"),
    *("A1_best.jpg", "my crystal.jpg", "lysozyme.png", "test.jpg", "Table_S2_page_1.png", "page_12B_3.jpg"),
    *(
        "20260302_A01.jpg",
        "scan_B12_001_2.jpg",
        "lysozyme_A01.jpg",
        "e4d9_c3.jpg",
        "b7.jpg",
        "A49.jpg",
        "03c3_A0_x_1.jpg",
    ),
    *("IMG_0123_45.jpg", "DSC_A1234.jpg", "scan_AB12_2019.jpg", "scan3_AF12_01.jpg", "20201201_A1B2.jpg"),
    *(
        "20201201_AB12_01.jpg",
        "lysozyme_AB12_01.jpg",
        "x7_A1_12.jpg",
        "x7_AG01_1.jpg",
        "x7_AF49_1.jpg",
        "x7_A01_00.jpg",
    ),
    *("x7_A01_100.jpg", "x7_A01_2019.jpg", "lyso2_T20.jpg", "gel3_Z03.jpg", "x7_V02.jpg", "run1_S01.jpg"),
    *("A01_00.jpg", "A01_100.jpg", "A01_2019.jpg", "AG01_1.jpg", "AF49_01.jpg", "AB123.jpg"),
]


def test_names_that_mean_nothing_have_no_place():
    assert len(MEANINGLESS) >= 200
    for folder in ("", "Downloads/", "/home/me/", "C:\\Users\\me\\Pictures\\", "my images/", "coco-code/"):
        for name in MEANINGLESS:
            assert place_of(folder + name) == Place(), folder + name


@hypothesis.given(
    st.one_of(
        st.uuids().map(str),
        st.binary(min_size=8, max_size=32).map(bytes.hex),
        st.integers(0, 10**12).map(str),
        st.datetimes(datetime.datetime(1000, 1, 1)).map("{:%Y-%m-%d %H.%M.%S}".format),
        st.from_regex(r"(IMG|DSC|Screenshot|photo|image)([_ -][a-zA-Z0-9]{1,9}){1,4}", fullmatch=True),
    ),
    st.sampled_from(["", "plate7/", "Downloads/", "a/03c3/day 3/"]),
)
def test_names_of_machines_have_no_place_in_any_folder(name, folder):
    assert place_of(f"{folder}{name}.jpg") == Place(), name


@pytest.mark.parametrize("folder", ["", "Desktop/", "/home/me/", "/home/me/images/", "C:\\Users\\me\\", "gs://bucket/"])
def test_a_well_without_a_plate_has_no_place(folder):
    assert place_of(f"{folder}A01.jpg") == Place()


def test_plates_of_one_name_in_two_folders_are_two_and_inspections_of_a_plate_are_one():
    first, second = (place_of(f"{lab}/03c3_A1_ImagerDefaults_1.jpg") for lab in ("one", "two"))
    assert first.plate == second.plate and first.identity != second.identity
    # One plate must not come into two splits because its files were sorted into folders.
    assert first.group == second.group == "03c3"
    first, second = (place_of(f"lab/03c3/{day}/03c3_A1_ImagerDefaults_1.jpg") for day in ("day 1", "day 7"))
    assert first.identity == second.identity
    first, second = (place_of(f"lab/90j8_2018-04-{day}_RI1000-0081-2drop/90j8_01A_1.jpg") for day in (11, 18))
    assert first.identity == second.identity and first.date < second.date
    first, second = (place_of(f"{lab}/plate1/A01.jpg") for lab in ("one", "two"))
    assert first.group != second.group


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("x.png", ""),
        ("plate1/x.png", "plate1"),
        ("a/plate1/x.png", "a/plate1"),
        ("plate1/2026-03-02/x.png", "plate1"),
        ("2026-03-02/x.png", "2026-03-02"),
        ("plate1/jpg/x.png", "plate1"),
        ("batch/03c3_A1_ImagerDefaults_1.jpg", "03c3"),
        ("a/plate1/day 2/A01.jpg", "a/plate1"),
    ],
)
def test_whatever_its_name_is_the_folder_of_an_image_keeps_it_with_others(path, group):
    assert plate_group(path) == group


def test_the_names_of_published_photographs_are_read():
    """Those of TexRank's and XChem's example plates; 25 other photographs are named by a number alone."""
    names = [
        f"CI022987/RMM3_01_222_ROBO_Test1_Clon1_CI_0000CI022987_003_121121_{row:02}_{column:02}_{drop:02}_HF_99_030_001_RDI.jpg"
        for row in range(1, 7) for column in range(1, 9) for drop in (1, 3, 4)
    ]  # fmt: skip
    places = [place_of(name) for name in names]
    assert {(place.plate, place.inspection, place.date) for place in places} == {("CI022987", "3", "2012-11-21")}
    assert len({(place.well, place.drop) for place in places}) == len(names) == 144
    assert {place.well for place in places} == {f"{row}{column}" for row in "ABCDEF" for column in range(1, 9)}
    folder = "90j8_2018-04-11_RI1000-0081-2drop"
    names = [
        f"{folder}/90j8_{column:02}{row}_{drop}.jpg" for column in range(1, 7) for row in "ABCDEFGH" for drop in (1, 2)
    ]
    places = [place_of(name) for name in names]
    assert {(place.plate, place.date) for place in places} == {("90j8", "2018-04-11")}
    assert len({(place.well, place.drop) for place in places}) == len(names) == 96


@pytest.mark.parametrize(
    "path", ["plateID_1/batchID_{}/wellNum_1/profileID_1/d1_r1_ef.jpg", "imaging/1/{}/2.jpg", "p_A1_x_{}.jpg"]
)
def test_a_number_of_thousands_of_digits_is_no_inspection(path):
    """Python does not convert it, and the name is that of a record, which may have any length: it ended an ingest."""
    assert place_of(path.format("9" * 18)).inspection == "9" * 18
    assert not place_of(path.format("9" * 5000)).inspection
    parts = {"plate": "p", "well": "A1", "inspection": "9" * 5000}
    assert from_parts("x.jpg", parts) == Place("p", "A1")


def test_a_name_longer_than_any_files_states_no_place():
    """One of 2,800 characters held an ingest for minutes."""
    assert place_of("1_A01_Default_" * 18 + "_5.jpg") != Place()
    assert place_of("1_A01_Default_" * 3000 + "_5.jpg") == Place()
