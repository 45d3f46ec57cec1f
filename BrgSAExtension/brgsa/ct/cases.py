"""Finding the scans to work on: files, DICOM folders, folder trees and CSV tables become a list of cases."""

import contextlib
import csv
import io
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from brgsa.ct.dicom_header import is_dicom, read_header
from brgsa.ct.metaimage import metaimage_data_file
from brgsa.ct.names import EXTENSIONS, absolute, case_name, safe_name, series_key
from brgsa.ct.nrrd import nrrd_data_file
from brgsa.ct.source import file_format, open_file, unreadable
from brgsa.errors import InputError, UsageError
from brgsa.files import csv_dicts, file_sha256, file_state
from brgsa.text import shorten

_DATA_FILES = {"nrrd": nrrd_data_file, "metaimage": metaimage_data_file}
_PHANTOM_PLAN = "plan.json"  # of `brgsa-training phantom generate`, beside the folders volumes and masks


@dataclass(frozen=True)
class Case:
    """One scan to work on. `name` is unique among its list and safe as a folder name on every system.

    `series` is the number of a DICOM series or a digest of its UID, see `names.series_key`; a UID becomes its digest.
    """

    name: str
    path: Path
    series: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", series_key(self.series))

    def state(self) -> str | None:
        """A short text that changes when the file, or a file of the folder, does; None where there is none.

        Nothing is read but the text header of a file whose voxels lie in another one, which is looked at, too. It may
        change although the scan did not, see `brgsa.files.file_state`.
        """
        try:
            found = [(file.name, *file_state(status)) for file, status in self._files()]
        except (OSError, ValueError):
            return None
        return _short_digest(found) if found else None

    def fingerprint(self) -> str:
        """`state` and a digest of the content, to be kept beside results: made before the scan is read."""
        return f"{self.state()} {self._content()}"

    def has_changed_since(self, fingerprint: str) -> bool:
        """Whether the scan is there and is another one than when its fingerprint was made.

        Where only the state differs (a copied folder, another network mount) the content is read and decides.
        """
        state, _, content = fingerprint.partition(" ")
        now = self.state()
        return now is not None and now != state and (not content or content != self._content())

    def _content(self) -> str:
        try:
            return _short_digest([(file.name, file_sha256(file)) for file, _ in self._files()])
        except (OSError, ValueError):
            return ""  # what reads the scan will say why

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """The regular files of the scan: those of the folder by name, or the file and that of its voxels."""
        files = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        found = list(_regular(files))
        beside = _DATA_FILES.get(EXTENSIONS.get(_extension(self.path), ""))
        if found and beside and files == [self.path]:
            with contextlib.suppress(InputError):  # what reads the scan will say why
                found += _regular(filter(None, [beside(self.path)]))
        return found


def find_cases(inputs: Iterable[str | os.PathLike]) -> list[Case]:
    """Expand inputs into cases, in the order of the inputs and of the paths within each; every scan comes once.

    An input is an image file, a DICOM folder or file, a folder tree of any of these, or a CSV with a `path` column
    (relative to the CSV's folder) and optional `case` and `series` columns. A single-slice DICOM file stands for its
    series. Hidden files are passed over, and so are the masks of a set of phantoms. Voxels are not read, and paths in a
    CSV are not looked at, so that one wrong row fails as one case.

    Names come from file and folder names; where two cases would share one, the parent folders' names are put before it.

    Raises:
        InputError: an input does not exist, a folder holds no images, or a CSV cannot be used.
    """
    found: dict[tuple[Path, str | None], Case] = {}
    for given in inputs:
        for case in _expand(Path(given)):
            found.setdefault((absolute(case.path), case.series), case)
    return _with_unique_names(list(found.values()))


def find_case(given: str | os.PathLike, series: str | None = None) -> Case:
    """The one scan that an input stands for; `series` is the UID of the DICOM series to read.

    Raises:
        InputError: as `find_cases`.
        UsageError: the input stands for several scans.
    """
    cases = find_cases([given])
    if len(cases) > 1:
        raise UsageError(f"{given} holds {len(cases)} scans. Give one of them, for example {cases[0].path}")
    return replace(cases[0], series=series or cases[0].series)


def _regular(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # a broken link
            status = file.stat()
            if stat.S_ISREG(status.st_mode):
                yield file, status


def _short_digest(found: list[tuple]) -> str:
    return sha256(repr(found).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _expand(path: Path) -> list[Case]:
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises on a name that is too long)
        cases = _tree(path)
        if not cases:
            raise InputError(f"{path}: the folder holds no CT; give one with NIfTI, NRRD, MetaImage or DICOM files.")
        return cases
    if not os.path.exists(path):  # noqa: PTH110 (as above)
        raise InputError(f"{shorten(str(path), 200)}: there is no such file or folder; check the spelling.")
    if path.suffix.lower() == ".csv":
        return _table(path)
    with contextlib.suppress(InputError):  # the reader will say why it cannot be read, and the other cases go on
        if file_format(path) == "dicom":
            header = read_header(path)
            if header is not None and header.frames == 1:
                return [Case("", path.parent, header.uid)]
    return [Case("", path)]


def _tree(top: Path) -> list[Case]:
    """Find image files and DICOM folders below a folder and behind links in it.

    One DICOM folder is one case, whatever series it holds. What cannot be opened becomes a case too, so that it fails
    by its name instead of being passed over.
    """
    cases, seen = [], set()
    walk = os.walk(top, onerror=lambda error: cases.append(Case("", Path(error.filename))), followlinks=True)
    for folder, subfolders, names in walk:
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in seen else sorted(name for name in subfolders if not name.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        if _PHANTOM_PLAN in names and {"masks", "volumes"} <= set(subfolders):
            subfolders.remove("masks")
        dicom = False
        for path in sorted(Path(folder, name) for name in names if not name.startswith(".")):
            extension = _extension(path)
            if EXTENSIONS.get(extension) == "dicom" or (not dicom and extension == "" and _may_be_dicom(path)):
                dicom = True
            elif extension:
                cases.append(Case("", path))
        if dicom:
            cases.append(Case("", Path(folder)))
    return cases


def _may_be_dicom(path: Path) -> bool:
    try:
        return path.is_file() and is_dicom(path)
    except InputError:
        return True  # the reader will say why it cannot be opened


def _extension(path: Path) -> str:
    """Return the known image extension of a file, or an empty text."""
    return max((end for end in EXTENSIONS if path.name.lower().endswith(end)), key=len, default="")


def _table(path: Path) -> list[Case]:
    """Read a CSV with a `path` column; `case` and `series` are optional."""
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as file:
            # Spreadsheets write semicolons where the comma is the decimal mark.
            delimiter = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv_dicts(file, delimiter=delimiter)
            columns, rows = reader.fieldnames or [], [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise unreadable(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 CSV table; save it as CSV UTF-8.") from error
    if "path" not in columns:
        listed = ", ".join(columns) or "none"
        raise InputError(f"{path}: has no column named path (its columns: {listed}); add it to the first line.")
    if not rows:
        raise InputError(f"{path}: has no rows below its first line; add one row per scan.")
    cases, seen = [], {}
    for line, row in rows:
        text, name = (row["path"] or "").strip(), (row.get("case") or "").strip()
        if not text:
            raise InputError(f"{path}: line {line} has an empty path; fill it in or remove the line.")
        name = safe_name(name) if name else ""
        if name and seen.setdefault(name.casefold(), line) != line:
            raise InputError(f"{path}: line {line} repeats the case {name} of line {seen[name.casefold()]}; rename it.")
        cases.append(Case(name, path.parent / text, (row.get("series") or "").strip() or None))
    return cases


def _with_unique_names(cases: list[Case]) -> list[Case]:
    """Name each case by as few of its last path parts as tell it from the others; a short hash where none do."""
    depth = [1] * len(cases)
    while True:
        names = [case.name or case_name(case.path, parts) for case, parts in zip(cases, depth, strict=True)]
        groups = defaultdict(list)
        for at, name in enumerate(names):
            groups[name.casefold()].append(at)
        deeper = [
            at
            for group in groups.values()
            if len(group) > 1
            for at in group
            if not cases[at].name and depth[at] < len(absolute(cases[at].path).parts) - 1
        ]
        if not deeper:
            break
        for at in deeper:
            depth[at] += 1
    for group in groups.values():
        for at in group if len(group) > 1 else []:
            names[at] = with_hash(replace(cases[at], name=cases[at].name or case_name(cases[at].path))).name
    return [replace(case, name=name) for case, name in zip(cases, names, strict=True)]


def with_hash(case: Case) -> Case:
    """The case under a name that no other scan has: with a short hash of its path and series."""
    key = f"{absolute(case.path)}\n{case.series or ''}".encode("utf-8", "surrogateescape")
    return replace(case, name=f"{case.name}-{sha256(key).hexdigest()[:8]}")
