"""What is left of a prediction that is stopped, how it is continued, and where and in what form tables are written."""

import csv
import errno
import io
import json
import os
import re
import resource
import signal
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marco_data import place_reader
from marco_model import errors
from marco_scoring import prediction, score_table, table_lines
from tests.fakes.classifier import Scripted as ScriptedClassifier


class Brightness(ScriptedClassifier):
    """A classifier whose crystal score is an image's brightness; `stop` is called before the batch of that number."""

    classes = ("Clear", "Crystals")
    temperature = 1.0

    def __init__(self, stop=None, at=0, name="brightness", scale=1.0):
        self.name, self.images, self._stop, self._at, self._scale = name, 0, stop, at, scale

    def score(self, encoded):
        if self._stop and self.images >= self._at:
            self._stop()
        self.images += len(encoded)
        means = [np.asarray(Image.open(io.BytesIO(image)).convert("L")).mean() / 255 * self._scale for image in encoded]
        return np.array([(1 - mean, mean) for mean in means], np.float32).reshape(-1, 2)


def interrupted():
    raise KeyboardInterrupt


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def draw(path, brightness):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), brightness).save(path)
    return path


@pytest.fixture
def files(tmp_path):
    return [draw(tmp_path / "plates" / f"drop {number}.png", 20 * number) for number in range(9)]


def rows(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def predict(classifier, files, output, *, batch_size=2, **options):
    return prediction.predict(classifier, files, output, batch_size, options=score_table.Options(**options))


@pytest.mark.parametrize(
    ("stop", "kind", "message"),
    [
        (interrupted, errors.Interrupted, "stopped by SIGINT: 4 rows are in "),
        (full, OSError, "No space left on device"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), errors.Interrupted, "stopped by SIGTERM: 4 rows are in "),
    ],
)
@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_what_was_scored_stays_and_resume_scores_only_the_rest(files, tmp_path, stop, kind, message, name):
    from pipelines.commands import options

    output, partial = tmp_path / name, tmp_path / name.replace(".", ".partial.")
    with pytest.raises(kind, match=message) as stopped, options.stopped_by_signals():
        predict(Brightness(stop, at=4), files, output)
    assert f"4 rows are in {partial}; the same command with --resume" in str(stopped.value)
    assert not output.exists() and partial.exists()
    with pytest.raises(errors.InputError, match="continue it with --resume, or delete"):
        predict(Brightness(), files, output)
    again = Brightness()
    outcome = predict(again, files, output, resume=True)
    assert again.images == 1 + 5  # One image of the earlier run is scored again.
    assert outcome.earlier == 4 and sum(outcome.by_class.values()) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plates", name]
    whole = tmp_path / f"whole-{name}"
    predict(Brightness(), files, whole)
    assert output.read_bytes() == whole.read_bytes()


@pytest.fixture
def small_disk(monkeypatch):
    """Returns a function that limits the size of what is written, as a full disk does; a part of a row still fits."""
    limits = []

    def limit(size):
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits.append((resource.getrlimit(resource.RLIMIT_FSIZE), handler))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[0][0][1]))

    def lift():
        while limits:
            before, handler = limits.pop()
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    yield types.SimpleNamespace(limit=limit, lift=lift)
    lift()


@pytest.mark.parametrize("count", [1, 4])
def test_a_full_disk_names_the_partial_file_which_has_whole_rows(files, tmp_path, small_disk, count):
    output, partial = tmp_path / "scores.csv", tmp_path / "scores.partial.csv"
    predict(Brightness(), files[: count + 1], output)
    size = output.stat().st_size - 5
    output.unlink()
    small_disk.limit(size)
    with pytest.raises(OSError, match="too large") as stopped:
        predict(Brightness(), files, output)
    small_disk.lift()
    rows_are = "1 row is" if count == 1 else f"{count} rows are"
    assert f"; {rows_are} in {partial}; the same command with --resume scores the rest" in stopped.value.strerror
    assert partial.read_bytes().endswith(b"\r\n") and len(rows(partial)) == count
    assert predict(Brightness(), files, output, resume=True).earlier == count
    assert len(rows(output)) == 9


@pytest.mark.parametrize("option", [{}, {"append": True}])
def test_a_disk_that_is_full_before_the_first_row_leaves_what_there_was(files, tmp_path, small_disk, option):
    output = tmp_path / "scores.csv"
    if option:
        predict(Brightness(), files[:5], output)
    before = output.read_bytes() if option else b""
    small_disk.limit(len(before) - 5 if option else 20)
    with pytest.raises(OSError, match="too large") as stopped:
        predict(Brightness(), files, output, **option)
    small_disk.lift()
    assert stopped.value.filename == str(tmp_path / "scores.partial.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plates", *(["scores.csv"] if option else [])]
    assert not option or output.read_bytes() == before


def test_a_list_of_failures_that_cannot_be_written_leaves_a_complete_table(files, tmp_path, monkeypatch):
    monkeypatch.setattr(score_table.name_tables, "write_csv", lambda *_: full())
    files[0].write_bytes(b"")
    with pytest.raises(OSError, match=r"the scores are complete in .*scores\.csv"):
        predict(Brightness(), files, tmp_path / "scores.csv")
    assert len(rows(tmp_path / "scores.csv")) == 8


def test_a_line_that_was_cut_is_scored_again(files, tmp_path):
    output, partial = tmp_path / "scores.csv", tmp_path / "scores.partial.csv"
    with pytest.raises(errors.Interrupted):
        predict(Brightness(interrupted, at=4), files, output)
    partial.write_bytes(partial.read_bytes()[:-5])
    assert predict(Brightness(), files, output, resume=True).earlier == 3
    assert [row["path"] for row in rows(output)] == [str(path) for path in files]


def test_a_run_that_scored_nothing_leaves_nothing(files, tmp_path):
    with pytest.raises(errors.Interrupted) as stopped:
        predict(Brightness(interrupted), files, tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["plates"]
    assert "no image was scored yet" in str(stopped.value)


@pytest.mark.parametrize("option", ["resume", "append"])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Brightness(name="other"), "scores of the model brightness, and this one is other"),
        (Brightness(scale=0.5), "another model of that name"),
    ],
)
def test_rows_of_another_model_are_never_mixed(files, tmp_path, option, other, message):
    output = tmp_path / "scores.csv"
    if option == "resume":
        with pytest.raises(errors.Interrupted):
            predict(Brightness(interrupted, at=6), files[1:], output)
    else:
        predict(Brightness(), files[1:5], output)
    with pytest.raises(errors.InputError, match=message):
        predict(other, files[1:], output, **{option: True})


def test_a_growing_folder_gets_only_its_new_and_changed_images_scored(files, tmp_path):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:6], output, append=True)
    before = rows(output)
    draw(files[2], 255)
    os.utime(files[2], (1_700_000_000, 1_700_000_000))
    classifier = Brightness()
    outcome = predict(classifier, files[1:], output, append=True)
    assert classifier.images == 1 + 4 and outcome.earlier == 4
    after = rows(output)
    assert [row["path"] for row in after] == [str(path) for path in files]
    assert after[:2] == before[:2] and after[3:6] == before[3:6]
    assert after[2]["crystals"] == "1.0000000" and after[2]["modified"] == "2023-11-14T22:13:20.000000Z"


def test_rows_of_images_that_are_gone_or_others_are_counted(files, tmp_path):
    output = tmp_path / "scores.csv"
    assert predict(Brightness(), files[:6], output, append=True)[4:7] == (6, 0, 0)
    files[0].unlink()
    assert predict(Brightness(), files[2:8], output, append=True)[4:7] == (6, 1, 0)
    assert predict(Brightness(), files[8:], output, append=True)[4:7] == (1, 1, 8)
    assert len(rows(output)) == 9


def test_columns_and_rows_that_people_added_to_a_table_stay_when_it_is_appended_to(files, tmp_path):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:2], output)
    lines = output.read_text().splitlines()
    noted = [f"{lines[0]},note", f"{lines[1]},look", f"{lines[2]},"]
    output.write_text("\ufeffsep=;\n" + "\n".join(line.replace(",", ";") for line in noted) + "\n")
    predict(Brightness(), files[:3], output, append=True)
    assert [row["note"] for row in rows(output)] == ["look", "", ""]


def test_a_table_of_another_kind_is_not_appended_to(files, tmp_path):
    output = tmp_path / "scores.csv"
    output.write_text("filename,label\na.jpg,Clear\n")
    with pytest.raises(errors.InputError, match="has no column path, plate"):
        predict(Brightness(), files, output, append=True)
    assert output.read_text().startswith("filename")


def test_a_second_process_that_writes_the_same_table_is_refused(files, tmp_path):
    output = tmp_path / "scores.csv"
    with (
        score_table.open_table(output, Brightness.classes, "brightness", score_table.SCORES_ALONE),
        pytest.raises(errors.InputError, match="another process writes"),
    ):
        predict(Brightness(), files, output)
    predict(Brightness(), files, output)
    assert len(rows(output)) == 9


def test_a_link_is_written_through_to_its_target(files, tmp_path):
    target = tmp_path / "store" / "real.csv"
    target.parent.mkdir()
    target.write_text("old")
    link = tmp_path / "scores.csv"
    link.symlink_to(target)
    predict(Brightness(), files, link)
    assert link.is_symlink() and len(rows(target)) == 9
    assert [path.name for path in target.parent.iterdir()] == ["real.csv"]


def test_a_pipe_gets_the_rows_and_is_not_replaced(files, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    predict(Brightness(), files, pipe)
    reader.join()
    assert pipe.is_fifo() and len(received[0].splitlines()) == 10


@pytest.fixture
def windows(monkeypatch):
    """What Windows lacks is missing, and where it differs the code believes to be there."""
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        monkeypatch.setitem(sys.modules, name, None)
    locks = types.SimpleNamespace(LK_NBLCK=2, locking=lambda number, mode, count: None)
    monkeypatch.setitem(sys.modules, "msvcrt", locks)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    return locks


def test_tables_are_written_on_windows(files, tmp_path, windows):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:4], output)
    with pytest.raises(errors.Interrupted):
        predict(Brightness(interrupted, at=6), files, output.with_name("more.csv"))
    assert predict(Brightness(), files, output.with_name("more.csv"), resume=True).earlier == 6
    assert predict(Brightness(), files, output, append=True).earlier == 4
    assert len(rows(output)) == len(rows(output.with_name("more.csv"))) == 9

    def refuse(*_):
        raise OSError(errno.EACCES, "locked")

    windows.locking = refuse
    with pytest.raises(errors.InputError, match="another process writes"):
        predict(Brightness(), files, output)


def test_standard_output_of_windows_gets_the_bytes_of_a_file(files, tmp_path, monkeypatch):
    path = files[0].rename(files[0].with_name("drop→1.png"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", newline="\r\n"))
    predict(Brightness(), [path], score_table.STDOUT)
    predict(Brightness(), [path], tmp_path / "scores.csv")
    assert written.getvalue() == (tmp_path / "scores.csv").read_bytes()


@pytest.mark.parametrize("output", [score_table.STDOUT, None])
def test_standard_output_gets_the_table_and_standard_error_the_rest(files, output, capsys):
    text = files[0].with_name("text.jpg")
    text.write_text("hello")
    outcome = predict(Brightness(), [*files, text], output)
    captured = capsys.readouterr()
    assert [row["path"] for row in csv.DictReader(io.StringIO(captured.out))] == [str(path) for path in files]
    assert outcome.failed == 1 and f"not scored: {text}: not a JPEG" in captured.err
    with pytest.raises(errors.InputError, match="--resume and --append continue a file"):
        predict(Brightness(), files, output, resume=True)


def test_a_terminal_gets_a_table_to_read(files, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    predict(Brightness(), files[:2], None)
    header, first, _ = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert header.split() == ["path", "class", "clear", "crystals", "flag"]
    assert first.split()[-7:] == ["Clear", "100.0", "%", "0.0", "%", "too", "small"]


@pytest.mark.parametrize("options", [{}, {"format": "jsonl"}])
def test_json_lines_hold_numbers_as_numbers_and_nothing_for_what_is_not_known(files, tmp_path, options):
    output = tmp_path / ("scores.csv" if options else "scores.jsonl")
    predict(Brightness(), files[:1], output, **options)
    (entry,) = map(json.loads, output.read_text().splitlines())
    assert entry["path"] == str(files[0]) and entry["plate"] is None
    assert entry["clear"] == 1.0 and entry["bytes"] == files[0].stat().st_size


def test_excel_opens_the_letters_of_a_table_rightly(tmp_path):
    file = draw(tmp_path / "Kühn" / "A01.png", 10)
    predict(Brightness(), [file], tmp_path / "excel.csv", format="excel")
    assert (tmp_path / "excel.csv").read_bytes().startswith(b"\xef\xbb\xbfpath,")
    assert rows(tmp_path / "excel.csv")[0]["plate"] == "Kühn"
    predict(Brightness(), [file], tmp_path / "plain.csv")
    assert (tmp_path / "plain.csv").read_bytes().startswith(b"path,")


def test_a_table_for_excel_stays_one_when_it_is_appended_to(files, tmp_path):
    output = tmp_path / "excel.csv"
    predict(Brightness(), files[:2], output, format="excel")
    predict(Brightness(), files[:3], output, append=True)
    draw(files[0], 255)  # Its row is replaced.
    with pytest.raises(errors.Interrupted):
        predict(Brightness(interrupted, at=3), files[:6], output, append=True)
    predict(Brightness(), files[:6], output, resume=True)
    assert output.read_bytes().count(b"\xef\xbb\xbf") == 1 and output.read_bytes().startswith(b"\xef\xbb\xbfpath,")
    assert len(rows(output)) == 6
    predict(Brightness(), files[:6], output, append=True, format="csv")
    assert output.read_bytes().startswith(b"path,")


def test_calibrated_probabilities_are_columns_where_the_model_has_a_temperature(files, tmp_path):
    classifier = Brightness()
    classifier.temperature = 2.0
    predict(classifier, files[3:4], tmp_path / "scores.csv")
    (row,) = rows(tmp_path / "scores.csv")
    scores = np.array([float(row["clear"]), float(row["crystals"])])
    expected = scores**0.5 / (scores**0.5).sum()
    assert [float(row[f"probability_{name}"]) for name in Brightness.classes] == pytest.approx(expected, abs=1e-6)


def test_the_best_of_a_drop_is_taken_over_slices_lights_and_inspections(tmp_path):
    files = [
        draw(tmp_path / "03c3" / "scan 1" / "A01_1.png", 10),
        draw(tmp_path / "03c3" / "scan 1" / "A01_2.png", 90),
        draw(tmp_path / "03c3" / "scan 2" / "A01_1.png", 200),
        draw(tmp_path / "03c3" / "UV" / "A01_1.png", 50),
        draw(tmp_path / "again" / "03c3" / "A01_1.png", 30),
        draw(tmp_path / "picture.png", 5),
        draw(tmp_path / "another.png", 6),
    ]
    # Two slices of one drop of RockMaker's storage.
    storage = tmp_path / "plateID_7" / "batchID_1" / "wellNum_2" / "profileID_1"
    files += [draw(storage / "d1_r5_00.png", 40), draw(storage / "d1_r5_01.png", 80)]
    expected = [(files[2], 3), (files[1], 1), (files[4], 1), (files[5], 1), (files[6], 1), (files[8], 2)]
    for name in ("scores.csv", "scores.jsonl"):
        predict(Brightness(), files, tmp_path / name, best=True)
    best = rows(tmp_path / "scores.csv")
    assert [(row["path"], row["images"]) for row in best] == [(str(path), str(count)) for path, count in expected]
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [(row["path"], row["images"]) for row in lines] == [(str(path), count) for path, count in expected]
    assert best[0]["inspection"] == "2"
    with pytest.raises(errors.InputError, match="--append needs the rows of all images"):
        predict(Brightness(), files, tmp_path / "scores.csv", best=True, append=True)


def test_a_report_of_a_continued_run_has_all_images(files, tmp_path):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:5], output)
    seen = []
    prediction.predict(
        Brightness(),
        files,
        output,
        2,
        lambda path, image: seen.append((path, image.encoded[:4], len(image.scores))),
        place_reader.reader(files),
        score_table.Options(append=True),
    )
    assert seen == [(path, b"\x89PNG", 2) for path in files]


def test_a_report_of_a_continued_run_says_why_an_earlier_image_is_missing(files, tmp_path):
    output, seen = tmp_path / "scores.csv", {}
    predict(Brightness(), files, output)

    def read(path):
        if path == files[3]:
            raise errors.InputError("cannot be read: Permission denied")
        return path.read_bytes()

    options = score_table.Options(append=True)
    prediction.predict(Brightness(), files, output, 2, seen.__setitem__, options=options, read=read)
    assert seen.pop(files[3]) == "cannot be read: Permission denied"
    assert {path for path, image in seen.items() if image.encoded[:4] == b"\x89PNG"} == {*files} - {files[3]}


def stop(files, output, **options):
    with pytest.raises(errors.Interrupted):
        predict(Brightness(interrupted, at=4), files, output, **options)


def test_rows_whose_line_ends_an_editor_changed_are_kept(files, tmp_path):
    output, partial = tmp_path / "scores.csv", tmp_path / "scores.partial.csv"
    stop(files, output)
    partial.write_bytes(partial.read_bytes().replace(b"\r\n", b"\n"))
    before = partial.read_bytes()
    with pytest.raises(errors.InputError, match="continue it with --resume, or delete"):
        predict(Brightness(), files, output)
    assert partial.read_bytes() == before
    assert predict(Brightness(), files, output, resume=True).earlier == 4
    assert len(rows(output)) == 9


@pytest.mark.parametrize(
    ("first", "second"), [("jsonl", "csv"), ("csv", "jsonl"), ("excel", "jsonl"), ("jsonl", "excel")]
)
def test_rows_of_a_stopped_run_in_another_format_are_kept(files, tmp_path, first, second):
    output, partial = tmp_path / "scores.csv", tmp_path / "scores.partial.csv"
    stop(files, output, format=first)
    before = partial.read_bytes()
    for resume in (True, False):
        with pytest.raises(
            errors.InputError, match=r"rows of the other format .* give --format (csv|jsonl) with --resume"
        ):
            predict(Brightness(), files, output, format=second, resume=resume)
        assert partial.read_bytes() == before
    assert predict(Brightness(), files, output, format=first, resume=True).earlier == 4


@pytest.mark.parametrize("option", ["resume", "append"])
def test_a_table_of_the_best_rows_is_not_continued_with_all(files, tmp_path, option):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:6], output, best=True)
    before = output.read_bytes()
    with pytest.raises(errors.InputError, match="one row per drop, of --best; give another --output"):
        predict(Brightness(), files, output, **{option: True})
    assert output.read_bytes() == before


def test_resume_without_a_stopped_run_scores_what_the_table_lacks(files, tmp_path):
    output = tmp_path / "scores.csv"
    predict(Brightness(), files[:6], output)
    classifier = Brightness()
    assert predict(classifier, files, output, resume=True).earlier == 6
    assert classifier.images == 1 + 3 and len(rows(output)) == 9


def test_damaged_images_do_not_keep_others_from_their_rows(files, tmp_path):
    """One in each batch, as a folder that is copied badly has them."""
    damaged = []
    for number in range(4):
        damaged.append(tmp_path / "plates" / f"cut {number}.png")
        damaged[-1].write_bytes(files[3].read_bytes()[:40])
    outcome = predict(Brightness(), sorted([*files, *damaged]), tmp_path / "scores.csv", batch_size=3)
    assert outcome.failed == 4 and [row["path"] for row in rows(tmp_path / "scores.csv")] == [str(f) for f in files]


@pytest.mark.parametrize("name", ["scores.xlsx", "scores.XLS", "scores.ods"])
def test_a_name_of_a_spreadsheet_is_refused(name):
    with pytest.raises(errors.InputError, match=r"would be no spreadsheet; give a name in \.csv"):
        table_lines.format_of(Path(name), None)


@pytest.mark.parametrize(
    ("column", "cell"), [("crystals", "NaN"), ("crystals", "[1]"), ("crystals_by_now", "Infinity")]
)
def test_a_table_with_a_score_that_is_not_a_finite_number_is_not_continued(tmp_path, column, cell):
    """A page with such a number in its data shows nothing at all."""
    output, extras = tmp_path / "scores.jsonl", score_table.Extras(course=True)
    names = score_table.columns(Brightness.classes, extras, stamped=True)
    cells = dict.fromkeys(names, "0") | {"model": "brightness", column: json.loads(cell)}
    output.write_text(json.dumps(cells) + "\n")
    options = score_table.Options(resume=True)
    with (
        pytest.raises(errors.InputError, match="a score that is not a number"),
        score_table.open_table(output, Brightness.classes, "brightness", extras, options=options),
    ):
        pass
