import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image

import marco_model
from marco_model import InputError, pixels
from pipelines.commands import options, score
from tests import processes
from tests.fakes.classifier import Scripted as ScriptedClassifier

HEADER = "path,plate,well,drop,class,clear,crystals,other,precipitate,model,inspection,date,flag,bytes,modified"


def marco(*arguments, cwd=None):
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.long
@pytest.mark.slow
def test_released_then_predict_gives_the_published_scores(real_images, tmp_path):
    result = processes.run_marco("released", "--output", tmp_path / "released")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "plate"
    folder.mkdir()
    for name in ("clear_220.jpeg", "crystals_10.jpeg", "precipitate_216.jpeg"):
        shutil.copy(real_images[name], folder / name.upper())
    (folder / "half.jpg").write_bytes(real_images["clear_220.jpeg"].read_bytes()[:30_000])
    output = tmp_path / "scores.csv"
    scored = processes.run_marco("predict", "--model", tmp_path / "released", "--output", output, folder)
    assert scored.returncode == 1, scored.stderr
    assert "1 of 4 files could not be scored" in scored.stderr
    assert output.read_text().splitlines()[0] == HEADER
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["Clear", "Crystals", "Crystals"]
    scores = [[float(row[name]) for name in ("clear", "crystals", "other", "precipitate")] for row in rows]
    expected = [
        (0.9133686, 0.0247527, 0.0256348, 0.0362439),
        (0.0260091, 0.9156436, 0.0293832, 0.0289640),
        (0.4092869, 0.4465934, 0.0921923, 0.0519273),
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert {row["model"] for row in rows} == {"marco-released"}
    with (tmp_path / "scores.errors.csv").open(newline="") as file:
        (error,) = csv.DictReader(file)
    assert error["path"] == str(folder / "half.jpg")
    assert error["reason"].startswith("does not decode")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["."], "no images in ."),
        ([""], "a path is empty"),
        (["--model", "nowhere", "drop.png"], "no model in nowhere"),
        (["--explain", "3", "drop.png"], "--explain and --thumbnail-size need --report FILE"),
        (["--report", ".", "drop.png"], "--report . is a folder"),
        (["--report", "-", "drop.png"], "--report - would be a file of that name"),
        (["--report", "scores.csv", "drop.png"], "--report and --output are both scores.csv"),
        (
            ["--report", "scores.errors.csv", "drop.png"],
            "--report and the list of failures of --output are both scores.e",
        ),
        (["--report", "scores.partial.csv", "drop.png"], "--report and the partial file of --output are both scores.p"),
    ],
)
def test_a_wrong_request_is_reported_in_one_line_with_exit_status_2(tmp_path, arguments, reason):
    if "drop.png" in arguments:
        (tmp_path / "drop.png").touch()
    done = marco("predict", "--output", "scores.csv", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {reason}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--output", "scores"], "--output scores"),
        (["--output", "link.csv"], "--output link.csv"),
        (["--output", "other.csv", "--report", "scores"], "--report scores"),
        (["--output", "listed.csv"], "the list of failures of --output listed.errors.csv"),
        (["--output", "names.csv"], "--output names.csv"),
    ],
)
def test_an_input_is_not_written_over(tmp_path, arguments, refused):
    (tmp_path / "names.csv").write_text("path,plate,well\n")
    for name in ("scores", "listed.errors.csv"):
        Image.new("L", (300, 300), 200).save(tmp_path / name, "PNG")
    (tmp_path / "link.csv").symlink_to("scores")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = marco("predict", *arguments, "--names", "names.csv", "scores", "listed.errors.csv", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {refused} is an input, ")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Brightness(ScriptedClassifier):
    """A classifier whose second class is the brightness of an image's first pixel."""

    classes, name, temperature = ("Clear", "Crystals"), "brightness", 1.0

    def score(self, images):
        shares = [pixels.decode(image)[0, 0].mean() / 255 for image in images]
        return np.float32([[1 - share, share] for share in shares]).reshape(-1, 2)


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setattr(options, "model_directory", lambda model, doing: model)
    monkeypatch.setattr(marco_model, "open_classifier", lambda directory, **_: Brightness())


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_plates_is_scored_whole_or_named(tmp_path, brightness, capsys):
    for name in ("plates/p1/a.jpg", "store/p2/b.png", "plates/.snapshot/p1/a.jpg", "plates/#recycle/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (300, 300), 200).save(tmp_path / name)
    plates = tmp_path / "plates"
    (plates / "p2").symlink_to("../store/p2")
    (plates / "gone.jpg").symlink_to("../store/gone.jpg")
    for name in ("a.jp2", "b.jp2", "picture"):
        (plates / name).touch()
    output = tmp_path / "scores.csv"
    with pytest.raises(typer.Exit) as stop:
        score.predict([plates, tmp_path / "plates" / ".." / "plates" / "p1", plates / "p1" / "a.jpg"], output, "model")
    assert stop.value.exit_code == 1
    assert [row["path"] for row in read(output)] == [str(plates / "p1" / "a.jpg"), str(plates / "p2" / "b.png")]
    assert [row["flag"] for row in read(output)] == ["blank"] * 2
    (failure,) = read(tmp_path / "scores.errors.csv")
    assert failure["path"] == str(plates / "gone.jpg") and "it links to ../store/gone.jpg" in failure["reason"]
    shown = capsys.readouterr()
    assert "passed over: 2 .jp2, 1 without ending; left out, hidden or copies: #recycle, .snapshot\n" in shown.err
    assert "1 of 3 files could not be scored" in shown.err
    assert "counted, but flagged, as pictures that cannot be judged (docs/scores.md): 2 blank\n" in shown.err


def test_endings_that_are_passed_over_are_named_where_there_are_no_images(tmp_path, brightness):
    (tmp_path / "a.heic").touch()
    with pytest.raises(InputError, match=r"no images in .*; endings looked for: .jpg .*; passed over: 1 .heic"):
        score.predict([tmp_path], tmp_path / "scores.csv", "model")


HOSTILE, ESCAPED = "\x1b[31mred\x1b]0;T\x9b.png", r"\x1b[31mred\x1b]0;T\x9b.png"


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path, brightness, capsys, monkeypatch):
    Image.new("L", (300, 300), 200).save(tmp_path / HOSTILE)
    (tmp_path / f"empty{HOSTILE}").touch()
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(typer.Exit):
        score.predict([tmp_path], None, "model")
    shown = capsys.readouterr()
    assert ESCAPED in shown.out and f"not scored: {tmp_path}/empty{ESCAPED}: " in shown.err
    assert "\x1b[31m" not in shown.out + shown.err and "\x9b" not in shown.out + shown.err
    output = tmp_path / f"scores{HOSTILE}.csv"
    with pytest.raises(typer.Exit):
        score.predict([tmp_path], output, "model")
    shown = capsys.readouterr()
    assert f"scores{ESCAPED}.csv: 1 image scored" in shown.out
    assert "\x1b" not in shown.out + shown.err
    assert read(output)[0]["path"] == str(tmp_path / HOSTILE)


def test_control_characters_in_tables_and_errors_are_escaped(tmp_path, capsys):
    options.Terminal(file=sys.stdout, force_terminal=True, highlight=False).print(f"an imager {HOSTILE}")
    shown = capsys.readouterr().out
    assert ESCAPED in shown and "\x1b[31m" not in shown
    result = marco("predict", tmp_path / HOSTILE / "gone", "--output", tmp_path / "scores.csv")
    assert "\x1b" not in result.stderr and "\\x1b[31mred" in result.stderr


@pytest.mark.parametrize("filtered", [False, True])
def test_nothing_is_shown_of_a_warning_of_pillow(tmp_path, filtered):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\0\x01"
    Image.new("RGB", (300, 300), (200, 10, 10)).save(tmp_path / "a.jpg", exif=exif)
    code = f"from marco_data import image_files; image_files.encoded_image({str(tmp_path / 'a.jpg')!r})"
    if filtered:
        code = f"from pipelines import cli; cli.app = lambda: exec({code!r}); cli.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("UserWarning" in result.stderr) is not filtered


def test_appending_says_which_rows_are_of_no_image_here(tmp_path, brightness, capsys):
    for name in ("old/a.png", "old/b.png", "new/plate_A1_c.png", "new/d.png", "new/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (300, 300), 200).save(tmp_path / name)
    output = tmp_path / "scores.csv"
    score.predict([tmp_path / "old"], output, "model")
    (tmp_path / "old" / "a.png").unlink()
    (tmp_path / "new" / "d.png").write_bytes(b"")
    capsys.readouterr()
    with pytest.raises(typer.Exit):
        score.predict([tmp_path / "new"], output, "model", append=True, names=r"(?P<plate>\w+)_(?P<well>A\d)_")
    shown = capsys.readouterr().err
    assert "kept, of images that are gone: 1 row\n" in shown
    assert f"none of these images is in the 2 rows that {output} had; paths are compared" in shown
    assert "1 of 2 scored images have no well" in shown


def test_rows_of_names_without_an_image_are_counted(tmp_path, capsys, brightness):
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    (tmp_path / "names.csv").write_text("path,plate,well\na.png,p,B2\nb.png,p,B3\n")
    score.predict([tmp_path / "a.png"], tmp_path / "scores.csv", "model", names=str(tmp_path / "names.csv"))
    assert read(tmp_path / "scores.csv")[0]["well"] == "B2"
    assert "rows of --names for files that are not among the images: 1\n" in capsys.readouterr().err


@pytest.mark.parametrize("report", [False, True])
def test_bits_of_the_camera_are_stated(tmp_path, brightness, report):
    Image.fromarray(np.full((300, 300), 1020, np.uint16)).save(tmp_path / "a.tif")
    for bits, share in ((None, 1020 >> 2), (12, 1020 >> 4), (16, 1020 >> 8)):
        output = tmp_path / f"{bits}.csv"
        page = tmp_path / f"{bits}.html" if report else None
        score.predict([tmp_path / "a.tif"], output, "model", bits=bits, report=page)
        assert float(read(output)[0]["crystals"]) == pytest.approx(share / 255, abs=1e-6)
    if report:
        assert "marco explain --model model --bits 12 --output explained" in page.with_name("12.html").read_text()
