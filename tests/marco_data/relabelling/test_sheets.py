"""Scoring, ranking and the folder for experts, with a classifier whose answers can be worked out by hand."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marco_data import contract
from marco_data.relabelling.scoring import cross_probabilities, fold_of, score_records
from marco_data.relabelling.sheets import check_raters, label_probabilities, most_disagreeing, write_export
from marco_data.shards import find_shards
from marco_data.tfrecord import frame
from marco_model.errors import InputError
from marco_model.labels import CLASSES


def encode(grey, image_format="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (grey, grey, grey)).save(buffer, image_format)
    return buffer.getvalue()


class ByGrey:
    """Scores the class `grey % 4` by `grey` per mille above chance; refuses a file that is not an image."""

    name, classes = "by-grey", CLASSES

    def probabilities(self, images):
        found = []
        for image in images:
            try:
                grey = np.asarray(Image.open(io.BytesIO(image)).convert("L"))[0, 0]
            except OSError:
                raise InputError("does not decode") from None
            rest = 0.25 - grey / 1000 / 4
            found.append([rest + (grey / 1000 if number == grey % 4 else 0) for number in range(4)])
        return np.array(found, np.float32)


def record(number, label, grey=0, **changes):
    values = {
        "encoded": encode(grey), "image_format": "JPEG", "height": 16, "width": 16, "filename": f"{number}.jpg",
        "image_id": number, "label": CLASSES.index(label), "label_text": label, "label_raw": 0, "source": 0,
    }  # fmt: skip
    return contract.build_example(**{**values, **changes}).SerializeToString()


@pytest.fixture
def shards(tmp_path):
    """Twenty images per split of grey 0, 4, … 76, which the classifier calls `Clear`; one in four has another label."""

    def write(name, records):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"".join(map(frame, records)))

    for first, name in ((0, "train-00001-of-00001"), (100, "test-00001-of-00001")):
        write(name, [record(first + n, "Other" if n % 4 == 0 else "Clear", 4 * n) for n in range(20)])
    return tmp_path, write


def score(folder, place=None, **options):
    problems = []
    shards = find_shards([place or str(folder / "in")])
    return score_records(ByGrey(), shards, on_problem=lambda *problem: problems.append(problem), **options), problems


def test_the_labels_with_the_lowest_scores_of_each_split_are_chosen_lowest_first(shards):
    found, problems = score(shards[0], batch_size=3)
    assert not problems and len(found.labels) == 40
    chosen = most_disagreeing(found, 0.1)
    ids = {split: found.image_ids[rows].tolist() for split, rows in chosen.items()}
    assert ids == {"train": [16, 12], "eval": [116, 112]}
    grey = 4 * 16 / 1000
    assert label_probabilities(found)[chosen["train"][0]] == pytest.approx((1 - grey) / 4)


def test_the_evaluation_sets_record_of_a_repeated_id_counts(shards):
    folder, write = shards
    write("train-00002-of-00002", [record(116, "Other", 64), record(500, "Other", 72)])
    found, _ = score(folder)
    chosen = most_disagreeing(found, 0.1)
    assert found.image_ids[chosen["eval"]].tolist() == [116, 112]
    assert found.image_ids[chosen["train"]].tolist() == [500, 16, 12]


def test_a_record_that_cannot_be_scored_is_reported_and_the_others_are_scored(shards):
    folder, write = shards
    broken = [record(600, "Clear", encoded=b"no image"), b"no example", record(601, "Clear", 8)]
    write("train-00002-of-00002", broken)
    found, problems = score(folder)
    assert [problem[:2] for problem in problems] == [("train-00002-of-00002", 1), ("train-00002-of-00002", 0)]
    assert 601 in found.image_ids and 600 not in found.image_ids
    with pytest.raises(InputError, match="no record"):
        (folder / "in" / "train-00002-of-00002").write_bytes(frame(b"x"))
        score_records(
            ByGrey(), find_shards([str(folder / "in" / "train-00002-of-00002")]), on_problem=lambda *problem: None
        )


def test_labels_of_other_classes_need_another_model(shards):
    folder, write = shards
    write("train-00002-of-00002", [record(600, "Clear", label_text="Skin")])
    message = r"labelled 'Skin', and the classes of by-grey are Clear, .* --folds 5"
    with pytest.raises(InputError, match=message):
        score(folder)
    read = []
    write("test-00000-of-00001", [record(600, "Clear", label_text="Skin")])
    with pytest.raises(InputError, match=message):
        score(folder, batch_size=1, on_bytes=read.append)
    assert len(read) == 1  # Immediately, not after all have been scored.


def test_a_split_whose_images_all_count_in_another_exports_none(shards):
    folder, write = shards
    write("train-00001-of-00001", [record(100 + n, "Other", 4) for n in range(20)])
    report = export(folder)["splits"]
    assert report["train"] == {"scored": 20, "exported": 0, "least_disagreement": None, "predicted_otherwise": 0}
    assert report["eval"]["exported"] == len(rows(folder / "look" / "key.csv")) == 5


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_is_above_zero_and_at_most_one(shards, share):
    found, _ = score(shards[0])
    with pytest.raises(InputError, match=f"--share is {share}"):
        most_disagreeing(found, share)


def export(folder, output="look", seed=0, raters=("anna", "ben"), place=None, into=None):
    found, problems = score(folder, place)
    chosen = most_disagreeing(found, 0.25)
    shown = find_shards([place or str(folder / "in")])
    about = {"model": "by-grey", "share": 0.25}
    return write_export(into or folder / output, shown, found, chosen, raters, seed, problems, about)


def rows(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_experts_get_the_original_images_without_their_labels(shards):
    folder, _ = shards
    report = export(folder)
    assert report["splits"]["train"] | {"least_disagreement": 0} == {
        "scored": 20, "exported": 5, "least_disagreement": 0, "predicted_otherwise": 5,
    }  # fmt: skip
    look = folder / "look"
    key = rows(look / "key.csv")
    assert {int(row["image_id"]) for row in key} == {n + first for n in (0, 4, 8, 12, 16) for first in (0, 100)}
    for row in key:
        assert (row["old_label"], row["predicted"]) == ("Other", "Clear")
        assert float(row["disagreement"]) == pytest.approx(1 - float(row["probability"]), abs=1e-6)
        grey = 4 * (int(row["image_id"]) % 100)
        assert (look / "raters" / row["file"]).read_bytes() == encode(grey)
    for name in ("anna", "ben"):
        sheet = rows(look / "raters" / f"sheet-{name}.csv")
        assert [row["image_id"] for row in sheet] == [row["image_id"] for row in key]
        assert {(row["label"], row["rater"], row["date"], row["note"]) for row in sheet} == {("", name, "", "")}
    page = (look / "raters" / "index.html").read_text()
    settings = json.loads(page.split('id="settings">')[1].split("</script>")[0])
    assert settings["items"] == [[row["image_id"], row["file"]] for row in key]
    assert settings["classes"] == list(CLASSES) and set(settings) == {"name", "classes", "raters", "items"}
    assert "://" not in page
    assert not (look / "skipped.csv").exists()


def test_the_order_is_shuffled_by_the_seed_alone(shards):
    folder, _ = shards
    for output, seed in (("a", 0), ("b", 0), ("c", 1)):
        export(folder, output, seed)
    first, again, other = (rows(folder / name / "key.csv") for name in "abc")
    assert first == again
    ids = [[int(row["image_id"]) for row in key] for key in (first, other)]
    assert sorted(ids[0]) == sorted(ids[1]) and ids[0] != ids[1] and ids[0] != sorted(ids[0])


@pytest.mark.slow
def test_shards_in_a_bucket_are_exported_as_those_in_a_folder(shards, gcs):
    folder, _ = shards
    bucket = gcs.bucket("drops")
    for path in (folder / "in").iterdir():
        bucket.blob(f"set/{path.name}").upload_from_filename(str(path))
    for fault in ("503", "cut"):
        gcs.inject(fault, "GET .*/o/set/.*alt=media")
    export(folder, "local")
    export(folder, "remote", place="gs://drops/set")
    local, remote = (
        {path.relative_to(folder / name): path.read_bytes() for path in (folder / name).rglob("*.*")}
        for name in ("local", "remote")
    )
    assert len(local) == 5 + 10 and local == remote


def test_a_folder_that_holds_something_is_left_alone(shards):
    folder, _ = shards
    (folder / "look").mkdir()
    (folder / "look" / "mine").touch()
    with pytest.raises(InputError, match="is not empty"):
        export(folder)
    assert [path.name for path in (folder / "look").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled_also_the_one_that_somebody_is_in(shards, monkeypatch):
    folder, _ = shards
    (folder / "look").mkdir()
    monkeypatch.chdir(folder / "look")
    export(folder, into=Path())
    assert len(rows(Path("key.csv"))) == 10 and (folder / "look" / "raters" / "index.html").is_file()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".partial")] == []


@pytest.mark.parametrize("names", [["a/b"], ["anna", "Anna"], [], ["../x"]])
def test_raters_have_names_of_their_own_that_can_name_a_file(names):
    with pytest.raises(InputError, match="rater"):
        check_raters(names)


def test_out_of_fold_a_wrong_label_is_not_believed_though_a_model_could_learn_it_by_heart():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    features = (np.eye(3)[true] * 6 + rng.normal(size=(300, 3))).astype(np.float32)
    features = np.concatenate([features, rng.normal(size=(300, 40)).astype(np.float32)], axis=1)
    labels = true.copy()
    wrong = rng.choice(300, 15, replace=False)
    labels[wrong] = (labels[wrong] + 1) % 3
    found = cross_probabilities(features, labels, 4, 5, [("", n) for n in range(300)])
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5) and not found[:, 3].any()
    worst = np.argsort(found[np.arange(300), labels])[:15]
    assert len(set(worst) & set(wrong)) >= 13


def test_images_of_a_plate_share_a_fold_where_there_are_plates_enough():
    names = [(f"{plate:04x}", plate * 100 + well) for plate in range(30) for well in (1, 2, 3)]
    folds = fold_of(names, 5).reshape(30, 3)
    assert (folds == folds[:, :1]).all() and set(folds.ravel()) == set(range(5))
    assert (fold_of(names, 5, repeat=1) != folds.ravel()).any()
    few = fold_of(names[:30], 5).reshape(10, 3)
    assert (few != few[:, :1]).any()


def test_too_few_images_or_folds_are_reported():
    with pytest.raises(InputError, match="--folds is 1"):
        cross_probabilities(np.zeros([4, 2], np.float32), np.array([0, 1, 0, 1]), 2, 1, [("", n) for n in range(4)])
    with pytest.raises(InputError, match="too few for 5 folds"):
        cross_probabilities(np.zeros([3, 2], np.float32), np.array([0, 0, 0]), 2, 5, [("", n) for n in range(3)])
