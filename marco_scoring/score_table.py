"""The table of scores: its columns, and how it is written so that nothing scored is lost; `table_lines` has its lines.

`ScoreTable` is what a prediction writes into. `open_table` opens one for a file, standard output or a terminal. While a
file is written, its rows are in a partial file beside it, `scores.partial.csv` for `scores.csv`, whole after each row.
A run that is stopped leaves that file, and the next one continues it (`Options.resume`).
"""

import contextlib
import dataclasses
import datetime
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from marco_data import image_files, name_tables, places
from marco_model import errors, store
from marco_scoring import plates, table_lines

Format = table_lines.Format
Row = table_lines.Row

STDOUT = Path("-")
LEADING_COLUMNS = ("path", "plate", "well", "drop", "class")
LAST_COLUMNS = ("model", "inspection", "date", "flag")
NOVELTY = "novelty"
COURSE_COLUMNS = ("crystals_by_now", plates.SINCE)
STAMP_COLUMNS = ("bytes", "modified")
_NOT_SHOWN = ("plate", "well", "drop", "model", "inspection", "date", *STAMP_COLUMNS)
"""A path states them."""


class Extras(NamedTuple):
    """What a model gives beside scores.

    calibrated: probabilities, a column `probability_CLASS` per class. novelty: how far an image is from the training
    pictures, the column `novelty`. course: when crystals came to a drop, `COURSE_COLUMNS`.
    """

    calibrated: bool = False
    novelty: bool = False
    course: bool = False


SCORES_ALONE = Extras()


def columns(classes: Sequence[str], extras: Extras = SCORES_ALONE, *, stamped: bool = False) -> list[str]:
    """Returns the header of the table: one column per class, in lower case, between the fixed columns.

    `stamped`: with size and time of the file.
    """
    names = [*LEADING_COLUMNS, *class_columns(classes).values(), *LAST_COLUMNS]
    names += [f"probability_{name}" for name in classes] if extras.calibrated else []
    names += [NOVELTY] if extras.novelty else []
    names += COURSE_COLUMNS if extras.course else []
    return [*names, *(STAMP_COLUMNS if stamped else ())]


def class_columns(classes: Sequence[str]) -> dict[str, str]:
    """Returns the column of each class's score."""
    taken = {*LEADING_COLUMNS, *LAST_COLUMNS, NOVELTY, *COURSE_COLUMNS, *STAMP_COLUMNS, plates.IMAGES}
    return {name: f"{name.lower()}_score" if name.lower() in taken else name.lower() for name in classes}


def row(
    path: str | Path,
    classes: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    model: str,
    place: places.Place,
    probabilities: Sequence[float] | np.ndarray = (),
    flag: str = "",
) -> Row:
    """Returns the row of an image; `scores` and `probabilities` are in the order of `classes`; see `pixels.flag`."""
    cells: Row = dict(zip(LEADING_COLUMNS, (path, place.plate, place.well, place.drop), strict=False))
    cells["class"] = classes[int(np.argmax(scores))]
    cells |= zip(class_columns(classes).values(), map(float, scores), strict=True)
    cells |= zip(LAST_COLUMNS, (model, place.inspection, place.date, flag), strict=True)
    if len(probabilities):
        cells |= zip((f"probability_{name}" for name in classes), map(float, probabilities), strict=True)
    return {name: cell if isinstance(cell, float) else image_files.as_text(cell) for name, cell in cells.items()}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a table is written.

    format: `csv`; `excel` for CSV with a byte order mark; `jsonl` for one JSON object per line; None by the ending of
    the file. resume: begin with the rows of the partial file, or of the table if there is none. append: begin with the
    rows of the table. best: one row per drop, see `plates.best_rows`. crystal_classes: those that decide which is best.
    """

    format: Format | None = None
    resume: bool = False
    append: bool = False
    best: bool = False
    crystal_classes: Sequence[str] = ()


DEFAULTS = Options()


class Earlier(NamedTuple):
    """A row of an earlier run: size and time of its file, its scores, float32 [classes], its flag and its course."""

    stamp: tuple[str, str]
    scores: np.ndarray
    flag: str
    course: plates.CourseAnswer | None = None


def errors_path(output: Path) -> Path:
    """Returns the path of the list of failed files: `scores.errors.csv` beside `scores.csv`."""
    return output.with_suffix(".errors.csv")


def partial_path(output: Path) -> Path:
    """Returns the path of the rows of a run that has not ended: `scores.partial.csv` for `scores.csv`."""
    return output.with_name(f"{output.stem}.partial{output.suffix}")


def stamp(path: Path) -> tuple[str, str]:
    """Returns the size of a file in bytes and the time of its last change, in UTC; empty if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return "", ""
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    changed = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(microsecond=rest // 1000)
    return str(status.st_size), changed.isoformat(timespec="microseconds").replace("+00:00", "Z")


# Tables


class ScoreTable:
    """What a prediction writes into, row by row; `open_table` makes one.

    `names`: the columns. `failures`: path and reason of each file that could not be scored. `earlier`: the rows of an
    earlier run by absolute path.
    """

    def __init__(self, names: Sequence[str], format: Format) -> None:
        self.names = list(names)
        self.format = format
        self.failures: list[tuple[str, str]] = []
        self.earlier: dict[str, Earlier] = {}
        self.written = 0
        self._courses: dict[str, Row] = {}

    def earlier_row(self, path: Path) -> Earlier | None:
        """Returns the row of a file that is there already, if the file has not changed since; None for others."""
        known = self.earlier.get(_key(path))
        return known if known and known.stamp == stamp(path) else None

    def earlier_others(self, files: Iterable[Path]) -> list[str]:
        """Returns the absolute paths of the earlier rows that are of none of `files`."""
        own = set(map(_key, files))
        return [path for path in self.earlier if path not in own]

    def write(self, cells: Row) -> None:
        """Counts the row of an image; subclasses write it where it belongs."""
        self.written += 1

    def add_courses(self, courses: Mapping[Path, plates.CourseAnswer]) -> None:
        """Fills `COURSE_COLUMNS` of rows, by path, when the table is completed."""
        self._courses |= {
            _key(path): dict(zip(COURSE_COLUMNS, answer, strict=True)) for path, answer in courses.items()
        }

    def _with_courses(self, rows: Iterable[Row]) -> list[Row]:
        return [{**cells, **self._courses.get(_key(cells["path"]), {})} for cells in rows]

    def write_failure(self, path: str | Path, reason: str) -> None:
        """Lists a file that could not be scored."""
        self.failures.append((image_files.as_text(path), image_files.as_text(reason)))

    def finish(self, drops: Callable[[Iterable[Row]], Iterable[Row]] | None) -> None:
        """Completes the table; `drops` returns one row per drop from all rows."""

    def remains(self) -> str:
        """Returns where the rows of a run that is stopped are."""
        return "1 image was scored" if self.written == 1 else f"{self.written} images were scored"

    def close(self) -> None:
        """Closes what is open; after a failure the rows stay."""


class StreamTable(ScoreTable):
    """A table on a stream such as standard output, or on a terminal; failures go to stderr.

    show: as a table for people. waits: rows are written when all of them are known.
    """

    def __init__(self, names: Sequence[str], format: Format, stream: IO[str], *, show: bool, waits: bool) -> None:
        super().__init__(names, format)
        self._stream, self._show, self._waits = stream, show, waits
        self._rows: list[Row] = []
        if not show:
            stream.write(table_lines.header(format, names))

    def write(self, cells: Row) -> None:
        """Writes a row, or keeps it until the table can be drawn."""
        if self._show or self._waits:
            self._rows.append(cells)
        else:
            self._stream.write(table_lines.line(self.format, self.names, cells))
            self._stream.flush()
        super().write(cells)

    def write_failure(self, path: str | Path, reason: str) -> None:
        """Lists a file on stderr."""
        super().write_failure(path, reason)
        print(errors.printable("not scored: {}: {}".format(*self.failures[-1])), file=sys.stderr)

    def finish(self, drops: Callable[[Iterable[Row]], Iterable[Row]] | None) -> None:
        """Writes the rows that were kept."""
        rows = self._with_courses(self._rows)
        rows = list(drops(rows)) if drops else rows
        self._rows = []
        if self._show:
            _show(rows, self.names, self._stream)
        else:
            self._stream.writelines(table_lines.line(self.format, self.names, cells) for cells in rows)
        self._stream.flush()

    def close(self) -> None:
        """Shows the rows of a run that was stopped."""
        if self._rows:
            self.finish(None)


def _show(rows: Sequence[Row], names: Sequence[str], stream: IO[str]) -> None:
    """Draws a table for people: the columns that say something, scores in per cent."""
    from rich import console, table, text

    drawn = table.Table(box=None, pad_edge=False)
    shown = []
    for name in names:
        values = [cells.get(name, "") for cells in rows]
        if any(value != "" for value in values) and name not in _NOT_SHOWN and not name.startswith("probability_"):
            shown.append(
                [f"{100 * cell:.1f} %" if isinstance(cell, float) else errors.printable(cell) for cell in values]
            )
            drawn.add_column(name, justify="right" if isinstance(values[0], float) else "left", overflow="fold")
    for cells in zip(*shown, strict=True):
        drawn.add_row(*map(text.Text, cells))
    if rows:
        console.Console(file=stream, highlight=False).print(drawn)


class FileTable(ScoreTable):
    """A table in a file, with its partial file; one process at a time writes it."""

    def __init__(
        self, output: Path, names: Sequence[str], classes: Sequence[str], model: str, options: Options
    ) -> None:
        super().__init__(names, table_lines.format_of(output, options.format))
        self._output = Path(os.path.realpath(output))
        self._partial = partial_path(self._output if output.is_symlink() else output)
        self._errors = errors_path(output)
        self._replaces = False
        self._scores = list(class_columns(classes).values())
        self._output.parent.mkdir(parents=True, exist_ok=True)
        file = store.open_locked(self._partial)
        if file is None:
            raise errors.InputError(f"another process writes {output}; wait until it ends, or give another --output")
        self._file = file
        whole, is_jsonl = _whole_lines(self._file)
        try:
            if whole and is_jsonl != (self.format == "jsonl"):
                raise errors.InputError(
                    f"{self._partial} holds rows of the other format of a run that was stopped; give --format "
                    f"{'jsonl' if is_jsonl else 'csv'} with --resume, or delete that file to begin again"
                )
            self._begin(whole, model, options)
        except BaseException:
            if not whole:  # The table still has all rows; with some of them here, --resume would lose the others.
                self.earlier.clear()
                self._file.truncate(0)
            self.close()
            raise

    def _begin(self, whole: int, model: str, options: Options) -> None:
        self._file.truncate(whole)
        earlier = self._partial
        if whole and not options.resume:
            raise errors.InputError(
                f"{self._partial} holds the rows of a run that was stopped; continue it with --resume, or delete that "
                "file to begin again"
            )
        if not whole:
            earlier = self._output
            # Only a table of all images tells which are missing.
            if not ((options.append or (options.resume and not options.best)) and earlier.exists()):
                self._put(table_lines.header(self.format, self.names))
                return
        header, rows = table_lines.read_rows(earlier, self.format)
        if options.format is None and self.format == "csv" and table_lines.has_mark(earlier):
            self.format = "excel"
        if not options.best and plates.IMAGES in header:
            raise errors.InputError(f"{earlier} has one row per drop, of --best; give another --output for all images")
        if missing := [name for name in self.names if name not in header and header]:
            raise errors.InputError(f"{earlier} has no column {', '.join(missing)}; give another --output")
        # Columns that somebody added to the table stay.
        self.names = header if whole and header else [*self.names, *(name for name in header if name not in self.names)]
        if not whole:
            self._put(table_lines.header(self.format, self.names))
        for cells in rows:
            self._know(cells, model, earlier)
            if not whole:
                self._put(table_lines.line(self.format, self.names, cells))

    def _know(self, cells: Row, model: str, earlier: Path) -> None:
        if cells["model"] != model:
            raise errors.InputError(
                f"{earlier} has scores of the model {cells['model']}, and this one is {model}; give the same --model, "
                "or another --output"
            )
        message = f"{earlier} has a score that is not a number ({{}}); correct that cell, or give another --output"
        with errors.translated(errors.InputError, message, ValueError, TypeError):
            scores = np.array([_number(cells[name]) for name in self._scores], np.float32)
            by_now, since = (cells.get(name, "") for name in COURSE_COLUMNS)
            course = plates.CourseAnswer(_number(by_now), str(since)) if by_now != "" else None
        key = _key(cells["path"])
        self._replaces |= key in self.earlier
        self.earlier[key] = Earlier((str(cells["bytes"]), str(cells["modified"])), scores, str(cells["flag"]), course)

    def _put(self, text: str) -> None:
        rest, end = memoryview(text.encode()), self._file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise OSError(error.errno, error.strerror, str(self._partial)) from error

    def write(self, cells: Row) -> None:
        """Writes a row to the partial file, whole."""
        self._replaces |= _key(cells["path"]) in self.earlier
        self._put(table_lines.line(self.format, self.names, cells))
        super().write(cells)

    def finish(self, drops: Callable[[Iterable[Row]], Iterable[Row]] | None) -> None:
        """Makes the partial file the table, and writes or removes the list of failed files."""
        errors.end_if_stopped()
        if drops or self._replaces or self._courses:
            names = [*self.names, plates.IMAGES] if drops else self.names
            # A row that was written later takes the place of the earlier one.
            latest = {_key(cells["path"]): cells for cells in table_lines.read_rows(self._partial, self.format)[1]}
            rows = self._with_courses(latest.values())
            with store.whole_file(self._output) as file:
                file.write(table_lines.header(self.format, names))
                file.writelines(
                    table_lines.line(self.format, names, cells) for cells in (drops(rows) if drops else rows)
                )
            self._end(lambda: self._partial.unlink())
        else:
            self._end(lambda: self._partial.replace(self._output))
        if self.failures:
            name_tables.write_csv(self._errors, ("path", "reason"), self.failures)
        else:
            self._errors.unlink(missing_ok=True)

    def _end(self, last: Callable[[], object]) -> None:
        """Does the last thing with the partial file; its lock is left after that, where open files can be renamed."""
        if sys.platform == "win32":
            self._file.close()
        last()
        self._file.close()

    def remains(self) -> str:
        """Returns where the rows of a run that is stopped are."""
        if self._file.closed:
            return f"the scores are complete in {self._output}"
        count = len(self.earlier) + self.written
        if not count:
            return "no image was scored yet"
        rows = "1 row is" if count == 1 else f"{count} rows are"
        return f"{rows} in {self._partial}; the same command with --resume scores the rest"

    def close(self) -> None:
        """Leaves the partial file if it has rows."""
        if not self._file.closed:
            if self.earlier or self.written or _whole_lines(self._file)[0]:
                self._file.close()
            else:
                self._end(lambda: self._partial.unlink(missing_ok=True))


def _number(cell: Any) -> float:
    """Returns a cell as a number; raises `ValueError` or `TypeError` for others, which no page can show."""
    if not math.isfinite(number := float(cell)):
        raise ValueError(cell)
    return number


def _key(path: str | Path) -> str:
    return os.path.normpath(Path(image_files.as_text(path)).absolute())


def _whole_lines(file: IO[bytes]) -> tuple[int, bool]:
    """Returns the bytes of the whole lines of a partial file, and whether it is JSON Lines.

    The bytes are 0 where the lines are not more than a header.
    """
    file.seek(0)
    content = file.read()
    is_jsonl = content.startswith(b"{")
    # Cells may have line feeds. Editors turn the ends of all lines into these.
    ending = b"\n" if is_jsonl or b"\r\n" not in content else b"\r\n"
    end = content.rfind(ending) + len(ending)
    return end if content.count(ending) > (not is_jsonl) else 0, is_jsonl


@contextlib.contextmanager
def open_table(
    output: Path | None,
    classes: Sequence[str],
    model: str,
    extras: Extras,
    *,
    options: Options = DEFAULTS,
    place_of: places.PlaceOf = places.place_of,
) -> Iterator[ScoreTable]:
    """Yields the table of a prediction by the model named `model`, which is complete when the block ends.

    `output`: a file, `STDOUT`, a device, or None for a table on a terminal and CSV elsewhere. `place_of`: which drops
    the images of `options.best` show.

    Raises:
        Interrupted: the block was stopped by a signal; the message says where the rows are.
        InputError: the table cannot be continued.
        OSError: the table cannot be written; the message says so too.
    """
    names = columns(classes, extras, stamped=True)
    crystals = plates.crystal_classes(classes, options.crystal_classes) if options.best else []
    crystal_columns = [class_columns(classes)[classes[number]] for number in crystals]
    if options.best and options.append:
        raise errors.InputError("--append needs the rows of all images, and --best leaves some out; give one of them")
    with contextlib.ExitStack() as stack:
        if output is None or output == STDOUT or store.is_stream(output):
            if options.resume or options.append:
                raise errors.InputError("--resume and --append continue a file; give --output FILE too")
            to_stdout = output is None or output == STDOUT
            stream = sys.stdout if to_stdout else stack.enter_context(store.whole_file(output or STDOUT))
            show = output is None and options.format is None and stream.isatty()
            if to_stdout and not show and isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", newline="")  # As files are, also on Windows.
            names += [plates.IMAGES] if options.best else []
            format = table_lines.format_of(output, options.format)
            table: ScoreTable = StreamTable(names, format, stream, show=show, waits=options.best or extras.course)
        else:
            table = FileTable(output, names, classes, model, options)
        stack.callback(table.close)
        try:
            yield table
            table.finish((lambda rows: plates.best_rows(rows, crystal_columns, place_of)) if options.best else None)
        except KeyboardInterrupt:
            raise errors.Interrupted(f"stopped by SIGINT: {table.remains()}", signal.SIGINT) from None
        except errors.Interrupted as stopped:
            raise errors.Interrupted(f"{stopped}: {table.remains()}", stopped.signal) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror or error}; {table.remains()}", str(output)) from error
        except BaseException:
            if table.written:
                print(table.remains(), file=sys.stderr)
            raise
