"""Which images a labelled set has; what becomes of them is in test_importing.py."""

import pytest
from PIL import Image

from marco_data import label_tables
from marco_model import errors


@pytest.fixture
def drops(tmp_path):
    for number, name in enumerate(("drops/Clear/a.png", "store/Crystals/b.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (30, 20), (number, 90, 90)).save(tmp_path / name)
    (tmp_path / "drops" / "Crystals").symlink_to("../store/Crystals")
    return tmp_path / "drops"


def test_a_linked_class_folder_is_read(drops):
    table = label_tables.from_folder(drops)
    assert [(image.path.name, table.classes[image.label]) for image in table.images] == [
        ("a.png", "Clear"),
        ("b.png", "Crystals"),
    ]


@pytest.mark.parametrize("raw_labels", [False, True])
def test_a_class_folder_that_is_gone_is_not_left_out_in_silence(drops, raw_labels):
    (drops.parent / "store").rename(drops.parent / "elsewhere")
    with pytest.raises(errors.InputError, match=r"drops/Crystals links to ../store/Crystals, which does not exist"):
        label_tables.from_folder(drops, raw_labels=raw_labels)


def test_links_that_are_no_class_folders_do_not_matter(drops):
    for name in (".hidden", "beside.png"):
        (drops / name).symlink_to("nowhere")
    table = label_tables.from_folder(drops)
    assert len(table.images) == 2
    assert table.notes == ["passed over, beside the class folders and so without a label: 1 images"]


@pytest.mark.parametrize(
    ("names", "plates"),
    [
        (("Clear/a.png", "Crystals/b.png"), ["", ""]),
        (("Clear/p1/a.png", "Crystals/p1/b.png"), ["p1", "p1"]),
        (("Clear/p1/a.png", "Clear/p1/b.png"), ["p1", "p1"]),
        (("mine/Clear/a.png", "mine/crystals/b.png"), ["", ""]),
        (("mine/Clear/p1/a.png", "mine/Crystals/p2/b.png"), ["p1", "p2"]),
        (("mine/Clear/a.png", "yours/Crystals/b.png"), ["mine", "yours"]),
        (("mine/a.png", "mine/b.png"), ["mine", "mine"]),
        (("mine/p1/a.png", "mine/p1/b.png"), ["mine/p1", "mine/p1"]),
    ],
)
def test_class_folders_and_what_holds_them_are_no_plates(tmp_path, names, plates):
    labels = tmp_path / "labels.csv"
    labels.write_text("filename,label\n" + "".join(f"{name},Clear\n" for name in names))
    assert [image.plate for image in label_tables.from_csv(labels).images] == plates


def test_rounded_ids_of_a_terf_table_are_refused(tmp_path):
    labels = tmp_path / "labels.csv"
    header = ",".join(label_tables.TERF_HEADER)
    rows = [f"{number}.png,{1076954365840980 + 10 * number},0,Clear,0,0" for number in range(8)]
    labels.write_text("\n".join([header, *rows]))
    with pytest.raises(errors.InputError, match=r"labels\.csv: all 8 ids of more than 15 digits end in 0"):
        label_tables.from_csv(labels)
    labels.write_text(f"{header}\n0.png,1.07695E+15,0,Clear,0,0\n")
    with pytest.raises(errors.InputError, match=r"line 2: image_id is '1\.07695E\+15'; .*a spreadsheet saved it"):
        label_tables.from_csv(labels)
