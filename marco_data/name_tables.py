"""The small CSV tables beside a set's shards, which name its numbers, and the table that names imagers.

`sources.csv` names the institutions, `labels-norm.csv` the classes and `labels-raw.csv` the raw labels (docs/data.md).
No feature of a record names the imager; it follows from the institution and the file name (`imager_of`).
"""

import codecs
import contextlib
import csv
import dataclasses
import decimal
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marco_model import errors, store

HEADER = ("id", "name")
SOURCES_FILE, CLASSES_FILE, RAW_LABELS_FILE = "sources.csv", "labels-norm.csv", "labels-raw.csv"
_HEADS = (*HEADER, "institution", "label")

INSTITUTIONS: tuple[str, ...] = ("Bristol-Myers Squibb", "CSIRO", "HWMRI", "GlaxoSmithKline", "Merck")
"""In the order of Table I of Bruno et al. 2018, which is that of MARCO's `sources.csv`."""
TABLE_I: dict[int, str] = dict(enumerate(INSTITUTIONS))

FORMULATRIX = "Formulatrix Rock Imager"
MINSTREL = "Rigaku Minstrel"
HWMRI_HOME = "HWMRI home system"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class ImagerRule:
    """Images of `institution` whose whole file name matches the regular expression `pattern` come from `imager`."""

    institution: str
    imager: str
    pattern: str = ".*"


IMAGER_RULES: tuple[ImagerRule, ...] = (
    ImagerRule("Bristol-Myers Squibb", FORMULATRIX),
    ImagerRule("CSIRO", FORMULATRIX, r".*_ImagerDefaults_.*"),
    ImagerRule("CSIRO", MINSTREL),
    ImagerRule("HWMRI", HWMRI_HOME),
    ImagerRule("GlaxoSmithKline", FORMULATRIX),
    ImagerRule("Merck", FORMULATRIX),
)


def imager_of(institution: str, filename: str, rules: Sequence[ImagerRule] = IMAGER_RULES) -> str:
    """Returns the imager of the first rule that fits, or `unknown`."""
    for rule in rules:
        if rule.institution == institution and re.fullmatch(rule.pattern, filename):
            return rule.imager
    return UNKNOWN


def is_number(text: str) -> bool:
    """Returns whether a cell is a whole number from 0 on that a record can hold, an int64."""
    return text.isdecimal() and len(text) <= 19 and int(text) < 1 << 63


def parse_table(text: str, origin: str) -> dict[int, str]:
    """Returns name by number, from lines of a number and a name in either order; a header is optional.

    Lines with only a name are numbered from 0. Cells are separated by commas, semicolons or tabs, whichever sets most
    numbers apart from their names. Raises `InputError`, which begins with `origin`, for a line that has neither form
    and for a number that occurs twice.
    """
    first, _, rest = text.lstrip("\ufeff").partition("\n")
    named = _named_separator(first)
    body = rest if named else text.lstrip("\ufeff")
    with _csv_errors(origin):
        lines = list(csv.reader(io.StringIO(body), delimiter=named or _separator_of_numbers(body)))
    # pandas writes 5.0 where a column had an empty cell.
    lines = [[re.sub(r"^([0-9]+)\.0+$", r"\1", plain(cell).strip()) for cell in line] for line in lines]
    rows = [row for line in lines if (row := list(filter(None, line)))]
    numbered = any(is_number(cell) for row in rows for cell in row)
    if rows and not any(is_number(cell) for cell in rows[0]) and (numbered or rows[0][0].lower() in _HEADS):
        rows = rows[1:]
    if not numbered and all(len(row) == 1 for row in rows):
        return {number: row[0] for number, row in enumerate(rows)}
    table: dict[int, str] = {}
    for row in rows:
        numbers = [cell for cell in row if is_number(cell)]
        names = [cell for cell in row if not is_number(cell)]
        if len(numbers) != 1 or not names:
            raise errors.InputError(f"{origin}: expected a number and a name in each line, found {','.join(row)!r}")
        if int(numbers[0]) in table:
            raise errors.InputError(f"{origin}: number {numbers[0]} is listed twice; give each name its own number")
        table[int(numbers[0])] = ", ".join(names)  # A name with commas that lacks its quotes.
    return table


def _separator_of_numbers(text: str) -> str:
    def is_number_and_name(line: str, separator: str) -> bool:
        cells = [cell.strip(' "') for cell in line.split(separator)]
        return len(cells) > 1 and any(map(is_number, cells))

    lines = text.split("\n")
    return max(_USUAL_SEPARATORS, key=lambda separator: sum(is_number_and_name(line, separator) for line in lines))


def read_cells(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header of a CSV file, in lower case, and line number and cells, stripped, of its rows but empty ones.

    Columns are separated by commas, semicolons or tabs; a first line `sep=;`, which Excel reads, names another one.
    Empty cells beyond the header are left out. Raises `InputError` for a cell of more than 131,072 characters.
    """
    with _csv_errors("the table"):
        reader = _reader(text)
        header = [name.strip().casefold() for name in next(reader, [])]
        rows = [(reader.line_num, [plain(cell).strip() for cell in row]) for row in reader]
    for _, cells in rows:
        # Spreadsheets end rows with the separators of columns that are empty.
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
    return header, [(line, cells) for line, cells in rows if any(cells)]


def read_rows(text: str) -> Iterator[list[str]]:
    """Yields the rows of a CSV file, the header first, as `write_rows` took them; separators as for `read_cells`."""
    return ([plain(cell) for cell in row] for row in _reader(text))


_USUAL_SEPARATORS = ",;\t"
_SEPARATORS = {*",;\t|:^~"}
"""What may separate columns; the `csv` module takes no zero byte, quote or end of line."""


def _reader(text: str) -> Any:
    """Returns the `csv.reader` of a CSV file, before its header."""
    first = text.partition("\n")[0]
    named = _named_separator(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=named or max(_USUAL_SEPARATORS, key=first.count))
    if named:
        next(reader)
    return reader


def _named_separator(first: str) -> str:
    """Returns the separator that a first line such as `sep=;` names; empty for another line."""
    line = first.strip('\r"')
    return line[4:] if line.casefold().startswith("sep=") and line[4:] in _SEPARATORS else ""


def _csv_errors(origin: str) -> contextlib.AbstractContextManager[None]:
    return errors.translated(errors.InputError, f"{origin} is not a CSV file: {{}}", csv.Error)


# What a spreadsheet takes for a formula by its first character, the wide forms of East Asian keyboards too; a quote in
# front makes it text. Source: OWASP, CSV Injection.
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def shielded(cell: Any) -> Any:
    """Returns a cell of which no spreadsheet makes a formula: such a text gets a quote in front; numbers stay."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def plain(cell: str) -> str:
    """Returns the text of which `shielded` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_rows(file: Any, rows: Iterable[Iterable[object]], end: str = "\n") -> None:
    """Writes rows of CSV into an open text file, each cell `shielded`; `end` ends a line."""
    for row in rows:
        line = io.StringIO()
        # Python below 3.13 quotes a carriage return in a cell only where lines end with one.
        csv.writer(line, lineterminator="\r\n").writerow([shielded(cell) for cell in row])
        file.write(line.getvalue()[:-2] + end)


_EXCEL_DIGITS = 15


def is_as_excel_leaves(text: str, number: int) -> bool:
    """Returns whether a cell may be what a spreadsheet makes of a whole number, such as `1.07695E+15`.

    Excel keeps 15 digits and shows fewer; Calc shows as many as fit.
    """
    try:
        shown = decimal.Decimal(text.replace(",", "."))
        digits = min(len(shown.as_tuple().digits), _EXCEL_DIGITS)
        return shown.is_finite() and abs(shown - number) < decimal.Decimal(10) ** (shown.adjusted() - digits + 1)
    except decimal.DecimalException:  # No number, or an exponent beyond all bounds.
        return False


def refuse_rounded_ids(ids: Iterable[int], origin: str) -> None:
    """Raises `InputError` for ids that a spreadsheet has rounded: all of more than 15 digits end in 0."""
    long = [number for number in ids if abs(number) >= 10**_EXCEL_DIGITS]
    if len(long) > 5 and not any(number % 10 for number in long):
        raise errors.InputError(
            f"{origin}: all {len(long)} ids of more than {_EXCEL_DIGITS} digits end in 0: a spreadsheet rounded them; "
            "give the file that was not saved by one"
        )


def read_csv_text(path: str | Path) -> str:
    """Returns the text of a CSV file, local or `gs://`, see `decode_csv`; raises `InputError` if it cannot be read."""
    with errors.translated(errors.InputError, f"{str(path)!r} cannot be read: {{}}", OSError, ValueError):
        content = store.read_bytes(str(path))
    try:
        return decode_csv(content)
    except UnicodeDecodeError:
        raise errors.InputError(
            f"{str(path)!r} is not UTF-8 text; save it again, in Excel as `CSV UTF-8 (Comma delimited)`"
        ) from None


def read_table(path: str | Path) -> dict[int, str]:
    """Returns the name by number of a file, local or `gs://`, also as spreadsheets save it; see `parse_table`."""
    return parse_table(read_csv_text(path), str(path))


def find_table(file_name: str, paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the tables of that name, such as `RAW_LABELS_FILE`, as one, or None; see `table_paths`.

    Raises `InputError` if a number has two names in them, since what goes by numbers would mix the two up.
    """
    files = dict.fromkeys(path for path in table_paths(file_name, paths, shards).values() if path)
    joined: dict[int, tuple[str, str]] = {}
    for file in files:
        for number, name in read_table(file).items():
            earlier, origin = joined.setdefault(number, (name, file))
            if earlier != name:
                raise errors.InputError(
                    f"{number} is {earlier!r} in {origin} and {name!r} in {file}; make one set of "
                    "them with marco data export and import (docs/data.md)"
                )
    return {number: name for number, (name, _) in joined.items()} if files else None


def find_tables(file_name: str, paths: Iterable[str], shards: Iterable[str]) -> dict[str, dict[int, str] | None]:
    """Returns the table of that name, such as `SOURCES_FILE`, of each of the files `shards`; see `table_paths`."""
    files = table_paths(file_name, paths, shards)
    tables = {file: read_table(file) for file in dict.fromkeys(files.values()) if file}
    return {shard: tables[file] if file else None for shard, file in files.items()}


def table_paths(file_name: str, paths: Iterable[str], shards: Iterable[str]) -> dict[str, str | None]:
    """Returns where the table of that name lies for each of the files `shards`, None without one.

    The shard's folder is searched, then the one above, then the folders among `paths` that it is in, the nearest first.
    If only one table is found, it is that of all shards.
    """
    longest_first = sorted(dict.fromkeys(paths), key=len, reverse=True)
    folders = {shard: _parent(shard) for shard in shards}
    nearest = dict.fromkeys(folders.values(), "")
    for folder in nearest:
        places = dict.fromkeys([folder, _parent(folder), *(path for path in longest_first if _is_in(folder, path))])
        candidates = (f"{place.rstrip('/')}/{file_name}" for place in places)
        nearest[folder] = next(filter(store.exists, candidates), "")
    found = {path for path in nearest.values() if path}
    only = found.pop() if len(found) == 1 else None
    return {shard: nearest[folder] or only for shard, folder in folders.items()}


def _parent(path: str) -> str:
    return path.rpartition("/")[0] if store.is_remote(path) else str(Path(path).parent)


def _is_in(folder: str, parent: str) -> bool:
    if store.is_remote(folder) or store.is_remote(parent):
        return f"{folder}/".startswith(f"{parent.rstrip('/')}/")
    return Path(folder).absolute().is_relative_to(Path(parent).absolute())


def write_tables(
    folder: Path,
    sources: Mapping[int, str] = TABLE_I,
    classes: Mapping[int, str] | None = None,
    raw_labels: Mapping[int, str] | None = None,
) -> None:
    """Writes `sources.csv` and, where they are given, `labels-norm.csv` and `labels-raw.csv` to `folder`."""
    for name, names in ((SOURCES_FILE, sources), (CLASSES_FILE, classes), (RAW_LABELS_FILE, raw_labels)):
        if names is not None:
            write_csv(folder / name, HEADER, sorted(names.items()))


def decode_csv(content: bytes) -> str:
    """Returns the text of a CSV file in UTF-8, or in UTF-16 with a byte order mark, which Excel calls Unicode text.

    Raises `UnicodeDecodeError` for other bytes.
    """
    return content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], *, for_excel: bool = False) -> None:
    """Writes a CSV file in UTF-8 with `\\n` at the ends of lines, whole or not at all.

    `for_excel`: with a byte order mark, without which Excel takes the bytes for another encoding.
    """
    with store.whole_file(path) as file:
        file.write("\ufeff" if for_excel else "")
        write_rows(file, [header])
        write_rows(file, rows)
