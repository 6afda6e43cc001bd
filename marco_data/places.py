"""Where a drop lies and when its image was taken, by the path of the image's file.

`place_of` reads a path by the conventions of imagers and laboratories (docs/data.md lists them); `plate_group` returns
the plate by which images of a set are kept together.

Sources of the conventions: Rigaku Minstrel: 144 names of TexRank's example plate, and the path
`MC100341/4/…_004_100716_01_06_01_…_RDI.jpg` in CSIRO's droplet segmentation, whose folder repeats the inspection. XChem
and RockMaker's storage: xchem/formulatrix_pipe, transfer_images.py. Wells are numbered along the rows, as other readers
of that storage count. VMXi: the Formulatrix uploader for ISPyB in DiamondLightSource's dlstbx.
"""

import datetime
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from marco_model import labels


class Place(NamedTuple):
    """Where a drop is and how its image was taken; a part that the path does not state is empty.

    `well` and `drop`: as written, or `G6` where a number or a row and a column are written. `inspection`: the digits of
    its number. `date`: ISO 8601 without a zone, `2005-09-05T20:32` or `2005-09-05`. `light`: as written, such as `UV`.
    `folder`: the folder of the plate, in which its name is unique. `by_folder`: only a folder names the plate.
    """

    plate: str = ""
    well: str = ""
    drop: str = ""
    inspection: str = ""
    date: str = ""
    light: str = ""
    folder: str = ""
    by_folder: bool = False

    @property
    def identity(self) -> str:
        """Differs between plates of one name in two folders."""
        return f"{self.folder}/{self.plate}" if self.folder else self.plate

    @property
    def group(self) -> str:
        """The plate by which images are kept together: by its name alone where file names state it.

        One plate in two folders would otherwise come into two splits. Empty if there is no plate.
        """
        return self.identity if self.by_folder else self.plate


PlaceOf = Callable[[str | Path], Place]
AnyPath = TypeVar("AnyPath", str, Path)

ROWS = (*string.ascii_uppercase, *(f"A{letter}" for letter in "ABCDEF"))
"""The names of the rows of a plate of 1,536 wells."""
_COLUMN = "(?:0?[1-9]|[1-3][0-9]|4[0-8])"
_WELL = rf"(?P<well>(?:A[A-F]|[A-Z]){_COLUMN})"
_TWO_DIGITS = "(?:0[1-9]|[1-3][0-9]|4[0-8])"
_DROP = "(?P<drop>0?[1-9]|[1-9][0-9])"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}"
_COLUMNS = ((96, 12), (384, 24), (1536, 48))
"""The wells of a plate and its columns. Fewer than 96 are counted as those of a plate of 96."""

_NUMBER = r"[0-9]{1,18}"
"""Of an inspection: more digits are no number that is counted, and may be too many for Python to read."""

_ONE_NUMBER = re.compile(rf"(?!-[0-9])[^0-9]*(?P<number>{_NUMBER})(?:\.0+)?[^0-9]*")
"""What states an inspection: `3`, `scan 3` or `3.0`, and neither `3 of 12` nor `-3`."""
_SECONDS = r"(?:[:m-]?[0-9]{2}s?(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_COMPACT_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
    rf"(?:[T _-]?(?P<hour>[0-9]{{2}})[:h-]?(?P<minute>[0-9]{{2}}){_SECONDS})?"
)
_SEPARATED_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?P<gap>[^0-9]{1,2})(?P<month>[0-9]{1,2})(?:(?P=gap)|[^\W\d_])(?P<day>[0-9]{1,2})[^\W\d_]?"
    rf"(?:[T _-]+(?P<hour>[0-9]{{1,2}})[:h-]?(?P<minute>[0-9]{{2}}){_SECONDS})?"
)
"""Year, month and day, in numbers of one digit too."""

_LONGEST_NAME = 255
"""Of a file, on most systems. A record's may be longer, and the time of a convention grows with its fourth power."""

_STORAGE = re.compile(
    rf"(?:(?P<home>.*)/)?plateID_?(?P<plate>[0-9]+)/batchID_?(?P<inspection>{_NUMBER})/wellNum_?(?P<number>[0-9]{{1,4}})/"
    r"profileID_?[0-9]+/d(?P<drop>[0-9]{1,2})_r[0-9]+_(?P<kind>ef|th|[0-9]+)",
    re.IGNORECASE,
)
_DATED = re.compile(
    rf"(?P<plate>[^_]+)_{_WELL}(?:-(?P<drop>[0-9]+))?_(?P<day>{_DAY})"
    r"(?:[T_-](?P<time>[0-9]{2}[-h:]?[0-9]{2})(?:[-m:]?[0-9]{2}s?)?(?=[_.]|$))?(?P<rest>_.*)?",
    re.IGNORECASE,
)
_FORMULATRIX = re.compile(
    # One or two digits are no profile: they may be a drop, or an inspection.
    rf"(?P<plate>[^_]+)_{_WELL}(?:-(?P<drop>[0-9]+))?_(?P<rest>(?(drop)|(?![0-9]{{1,2}}_))[^_]+)_(?P<inspection>{_NUMBER})",
    re.IGNORECASE,
)
_ROCKMAKER = re.compile(
    rf"(?P<plate>.*[0-9].*)_{_WELL}(?:-(?P<drop>[0-9]+))?_(?P<rest>.*Default.*)_(?P<inspection>{_NUMBER})",
    re.IGNORECASE,
)
_MINSTREL = re.compile(
    r"(?:[^_]+_){7}0*(?P<plate>[^_]+)_(?P<inspection>[0-9]{3})_(?P<short_day>[0-9]{6})_(?P<row>[0-9]{2})_"
    r"(?P<column>[0-9]{2})_(?P<drop>[0-9]{2})_[^_]+_[^_]+_[0-9]+_[0-9]+_RDI",
    re.IGNORECASE,
)
_HWMRI = re.compile(
    r"(?P<plate>X[0-9]{9})(?P<well>[0-9]{4})(?P<day>[0-9]{8})(?P<time>[0-9]{4})(?P<rest>-[a-z]+)?", re.IGNORECASE
)
_XCHEM = re.compile(r"(?P<plate>[^_]+)_(?P<column>0[1-9]|1[0-9]|2[0-4])(?P<row>[A-P])_(?P<drop>[1-9])")
# At the end of a name, T05, V02 and Z03 are times, versions and slices rather than wells of the rows Q to Z.
_PLATE_AND_WELL = re.compile(
    rf"(?P<plate>[^_]+)_(?P<well>(?:A[A-F]|[A-P]){_TWO_DIGITS}|[Q-Z]{_TWO_DIGITS}(?=[_-]))(?:[_-]{_DROP})?"
)
_WELL_ALONE = re.compile(rf"{_WELL}(?:[_.-]{_DROP})?")
_VMXI = re.compile(rf"(?:(?P<home>.*)/)?imaging/(?P<plate>[0-9]+)/(?P<inspection>{_NUMBER})/[0-9]+(?P<kind>th)?")

_COPY = re.compile(r"^copy of | - copy| ?\([0-9]+\)$", re.IGNORECASE)
_LIGHT = re.compile(
    r"(?<![A-Za-z])(?:vis(?:ible)?|uvt?|uv-?tpef|tpef|shg|fluo(?:rescence)?|bright-?field|pol(?:ari[sz]ed)?)(?![A-Za-z])",
    re.IGNORECASE,
)
_INSPECTION_FOLDER = re.compile(
    rf"(?:day|week|time ?point|inspection|insp|scan)[ _-]*(?P<inspection>{_NUMBER})|(?P<day>{_DAY})(?:[^0-9].*)?",
    re.IGNORECASE,
)
_FOLDER_DATE = re.compile(rf"(?<![0-9])(?:{_DAY})(?![0-9])")
_NO_PLATE = re.compile(
    r"[0-9 _-]*(?:best|capture|camera|cimg|clip|copy|crop|crystals?|dji|download|drops?|dscf?|dscn|edit|export|"
    r"fig(?:ure)?|file|final|frame|gopr|images?|img|mvimg|new|page|panel|photos?|pic|pictures?|pxl|sam|sample|scan|screen(?:shot)?|"
    r"slide|snap(?:shot)?|supp|table|test|tile|tmp|untitled|vid|video|well|whatsapp)(?![a-z]).*",
    re.IGNORECASE,
)
"""Begin the names that cameras, screens and people write."""
_NO_PLATE_FOLDER = re.compile(
    r"archive|data(?:set)?|dcim|desktop|documents|downloads?|drops|export|home|media|mnt|plates|results|set|srv|temp|tmp|"
    r"users|volumes|wellimages|work|[a-z]:",
    re.IGNORECASE,
)
_FOLDER_IN_PLATE = re.compile(
    r"bmp|eval|images?|img|jpe?g|photos?|pictures|png|raw|test|tiff?|train|val(?:idation)?|" + "|".join(labels.CLASSES),
    re.IGNORECASE,
)
"""Folders by class, split or format: the one above may be a plate."""
_OWNERS = frozenset(("gs:", "home", "s3:", "users"))
"""The folders in these are people's and buckets."""


def place_of(path: str | Path, wells: int = 96) -> Place:
    """Returns the place that a path, or a base name, states by the first convention that fits; else an empty one.

    `wells`: the size of the plate by which a number of a well in RockMaker's storage is read.
    """
    folders, stem = _parts(path)
    if len(stem) > _LONGEST_NAME:
        return Place()
    whole = "/".join([*folders, stem])
    if match := _STORAGE.fullmatch(whole) or _VMXI.fullmatch(whole):
        return _place(match.groupdict(), folders, wells)
    for pattern in (_MINSTREL, _DATED, _FORMULATRIX, _HWMRI, _ROCKMAKER, _XCHEM, _PLATE_AND_WELL):
        match = pattern.fullmatch(stem)
        if match and _is_plate(match, folders):
            place = _place(match.groupdict(), folders, wells)
            if place.plate:
                return place
    match = _WELL_ALONE.fullmatch(stem)
    return _by_folder(match.groupdict(), folders) if match else Place()


def _parts(path: str | Path) -> tuple[list[str], str]:
    """Returns the folders of a path and the name without ending; what a copy adds to a name is taken away."""
    *folders, name = str(path).replace("\\", "/").split("/")
    stem = name.rpartition(".")[0] or name
    return [folder for folder in folders if folder not in ("", ".")], _COPY.sub("", stem)


def _is_plate(match: re.Match[str], folders: Sequence[str]) -> bool:
    """Whether what stands in a plate's place may be one; the loose conventions need a digit or a folder of its name."""
    plate = match["plate"]
    if match.re is _MINSTREL or "default" in (match.groupdict().get("rest") or "").casefold():
        return True
    if _NO_PLATE.fullmatch(plate):
        return False
    if match.re not in (_XCHEM, _PLATE_AND_WELL):
        return True
    has_digit = any(character.isdecimal() for character in plate)
    return not re.fullmatch(_DAY, plate) and (has_digit or any(_names(plate, folder) for folder in folders))


def _names(plate: str, folder: str) -> bool:
    pattern = rf"(?<![A-Za-z0-9]){re.escape(plate)}(?![A-Za-z0-9])"
    return plate.casefold() in folder.casefold() and bool(re.search(pattern, folder, re.IGNORECASE))


def _place(parts: Mapping[str, str | None], folders: list[str], wells: int = 96) -> Place:
    """Returns the place of the parts of a name; an empty one for a well or a date that does not exist."""
    part = {name: value or "" for name, value in parts.items()}
    well = part.get("well", "")
    if "row" in part:
        well = _well_name(part["row"], int(part["column"]))
    elif "number" in part:
        well = _numbered_well(int(part["number"]), wells)
    day = part.get("day", "") or (f"20{part['short_day']}" if "short_day" in part else "")
    date = iso_date(day, part.get("time", ""))
    # HWMRI's digits mean nothing else, whatever their date.
    if (day and not date and not well.isdecimal()) or (not well and {"well", "row", "number"} & part.keys()):
        return Place()
    drop, inspection = part.get("drop", ""), part.get("inspection", "")
    if "row" in part or "number" in part:
        drop, inspection = str(int(drop)), inspection and str(int(inspection))
    home, dated, light = _context(folders, part["plate"], part.get("home"))
    light_in_name = _LIGHT.search(part.get("rest", ""))
    return Place(
        part["plate"], well, drop, inspection, date or dated, light_in_name[0] if light_in_name else light, home
    )


def _context(folders: list[str], plate: str, home: str | None) -> tuple[str, str, str]:
    """Returns the folder in which a plate's name is unique, and date and light that the folders below it state."""
    if home is not None:
        return home, "", ""
    named = next((number for number, folder in enumerate(folders) if _names(plate, folder)), None)
    first = len(folders) if named is None else named
    while named is None and first and _is_within_plate(folders[first - 1]):
        first -= 1
    below = folders[first:]
    dates = [iso_date(match[0]) for folder in below if (match := _FOLDER_DATE.search(folder))]
    lights = [match[0] for folder in below if (match := _LIGHT.search(folder))]
    return "/".join(folders[:first]), (dates or [""])[-1], (lights or [""])[-1]


def _by_folder(parts: Mapping[str, str | None], folders: list[str]) -> Place:
    """Returns the place of a well whose plate the folder names; an empty one if no folder can be a plate."""
    first = _plate_depth(folders)
    plate = folders[first - 1] if first else ""
    above = folders[first - 2].casefold() if first > 1 else ""
    if not plate or _NO_PLATE_FOLDER.fullmatch(plate) or above in _OWNERS:
        return Place()
    inspection = date = light = ""
    for folder in folders[first:]:
        match = _INSPECTION_FOLDER.fullmatch(folder)
        if match and match["inspection"]:
            inspection = match["inspection"]
        elif match:
            date = iso_date(match["day"])
        elif _LIGHT.fullmatch(folder):
            light = folder
    home = "/".join(folders[: first - 1])
    return Place(plate, parts["well"] or "", parts["drop"] or "", inspection, date, light, home, by_folder=True)


def _plate_depth(folders: Sequence[str]) -> int:
    """Returns how many folders lead to the one that may be a plate's, itself among them."""
    depth = len(folders)
    while depth and (_is_within_plate(folders[depth - 1]) or _FOLDER_IN_PLATE.fullmatch(folders[depth - 1])):
        depth -= 1
    return depth


def _is_within_plate(folder: str) -> bool:
    return bool(_INSPECTION_FOLDER.fullmatch(folder) or _LIGHT.fullmatch(folder))


def is_visible(light: str) -> bool:
    """Returns whether the light of a place is the usual one, also if none is stated."""
    return not light or bool(re.fullmatch("vis(?:ible)?|bright-?field", light, re.IGNORECASE))


def plate_group(path: str | Path) -> str:
    """Returns the plate by which an image of a set is kept together with others; empty if nothing names one.

    `path`: relative to the set, or to the folder of its class. Whatever its name is, its folder counts as a plate.
    """
    place = place_of(path)
    if place.group:
        return place.group
    folders, _ = _parts(path)
    return "/".join(folders[: _plate_depth(folders)] or folders)


def iso_date(day: str, time: str = "") -> str:
    """Returns the digits of a day and of an hour and minute (may be empty) as ISO 8601; empty for an invalid date.

    A year before 1970 or after 2099 is invalid.
    """
    digits = re.sub(r"\D", "", day)
    if not 1970 <= int(digits[:4] or 0) < 2100:
        return ""
    try:
        if not time:
            return datetime.datetime.strptime(digits, "%Y%m%d").date().isoformat()
        moment = datetime.datetime.strptime(digits + re.sub(r"\D", "", time), "%Y%m%d%H%M")
    except ValueError:
        return ""
    return moment.isoformat(timespec="minutes")


def _well_name(row: str, column: int) -> str:
    """Returns `G6` for the row `G` or `07` and the column 6; empty for one beyond a plate of 1,536 wells."""
    if row.isdecimal():
        row = ROWS[int(row) - 1] if 1 <= int(row) <= len(ROWS) else ""
    return f"{row}{column}" if row and 1 <= column <= 48 else ""


def _numbered_well(number: int, wells: int) -> str:
    columns = next((columns for size, columns in _COLUMNS if max(number, wells) <= size), 0)
    return _well_name(str((number - 1) // columns + 1), (number - 1) % columns + 1) if number and columns else ""


def main_images(paths: Sequence[AnyPath]) -> list[AnyPath]:
    """Returns `paths` without the further images of the same shot that RockMaker's storage and VMXi's keep.

    The extended focus (`ef`) is kept, else the slices, else the thumbnail (`th`).
    """
    shots = [_shot(path) for path in paths]
    kinds: dict[str, set[str]] = {}
    for shot, kind in shots:
        kinds.setdefault(shot, set()).add(kind)

    def is_main(shot: str, kind: str) -> bool:
        better = kinds[shot] - {kind, "th"}
        return kind in ("", "ef") or not ("ef" in better or (kind == "th" and better))

    return [path for path, shot in zip(paths, shots, strict=True) if is_main(*shot)]


def _shot(path: str | Path) -> tuple[str, str]:
    """Returns what the images of a shot share, and the kind of this one; the path and no kind where none is named."""
    folders, stem = _parts(path)
    whole = "/".join([*folders, stem])
    if match := _STORAGE.fullmatch(whole) or _VMXI.fullmatch(whole):
        return whole.removesuffix(match["kind"] or ""), (match["kind"] or "ef").lower()
    return str(path), ""


def storage_well(path: str | Path) -> tuple[str, int]:
    """Returns the plate's folder and the well's number of a path in RockMaker's storage; else an empty one and 0."""
    folders, stem = _parts(path)
    match = _STORAGE.fullmatch("/".join([*folders, stem]))
    return (f"{match['home']}/{match['plate']}", int(match["number"])) if match else ("", 0)


EXPECTED = {
    "well": "a well from A1 to AF48, or four digits",
    "date": "a date such as 2026-11-26 or 2026-11-26T14:30, the year first",
    "inspection": "an inspection's number of at most 18 digits",
}
"""The parts that `from_parts` may be unable to read, and what they may be."""


def from_parts(path: str | Path, parts: Mapping[str, str | None]) -> Place:
    """Returns the place that is given as text by the names of a `Place`'s fields; without a plate, the folder names it.

    A date begins with the year and may have any separators. A well that no plate has, a date that does not exist or
    has another order, and an inspection that is not one number of at most 18 digits count as not given; `unreadable`
    returns them.
    """
    part = _readable(parts)
    folders, _ = _parts(path)
    well, date, inspection = part.get("well", ""), part.get("date", ""), part.get("inspection", "")
    if not part.get("plate"):
        place = _by_folder({"well": well, "drop": part.get("drop", "")}, folders) if well else Place()
        return place._replace(date=date or place.date, inspection=inspection or place.inspection)
    home = _context(folders, part["plate"], None)[0]
    return Place(part["plate"], well, part.get("drop", ""), inspection, date, part.get("light", ""), home)


def unreadable(parts: Mapping[str, str | None]) -> list[str]:
    """Returns the names of the parts that are given but that `from_parts` counts as not given."""
    readable = _readable(parts)
    return [name for name in EXPECTED if (parts.get(name) or "").strip() and not readable[name]]


def _readable(parts: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the parts as a `Place` has them; those that cannot be read are empty."""
    part = {name: (value or "").strip() for name, value in parts.items()}
    if not re.fullmatch(rf"{_WELL}|[0-9]{{4}}", part.get("well", ""), re.IGNORECASE):
        part["well"] = ""
    part["date"] = _stated_date(part.get("date", ""))
    inspection = _ONE_NUMBER.fullmatch(part.get("inspection", ""))
    part["inspection"] = inspection["number"] if inspection else ""
    # Spreadsheets and pandas write whole numbers so where a cell of the column is empty.
    part["drop"] = re.sub(r"(?<=[0-9])\.0+$", "", part.get("drop", ""))
    return part


def _stated_date(text: str) -> str:
    """Returns a date, and a time if there is one, as ISO 8601; empty where a day could be taken for a month."""
    match = _COMPACT_DATE.fullmatch(text) or _SEPARATED_DATE.fullmatch(text)
    if not match:
        return ""
    part = {name: value.zfill(2) for name, value in match.groupdict(default="").items()}
    return iso_date(part["year"] + part["month"] + part["day"], part["hour"] + part["minute"] if match["hour"] else "")
