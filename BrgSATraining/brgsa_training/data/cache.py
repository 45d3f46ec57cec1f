"""The cache of preprocessed volumes, one memory-mapped file per case.

CACHE/cache.json         version, preprocessing plan, fidelity
CACHE/volumes/CASE.npy   int16 HU on the model's grid, (X, Y, Z), Z fastest
CACHE/manifest.csv       case, study, patient, bytes, sha256, note; lines are added as cases are done
CACHE/failures.csv       case, path, code, reason of what the last run could not read
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO

import numpy as np

from brgsa.errors import InputError, SetupError, UsageError
from brgsa.files import CSVWriter, atomic_open, csv_reader, write_csv, write_error, write_json
from brgsa.preprocess import FIDELITIES, PreprocessingPlan

CACHE_VERSION = 1
CACHE = "preprocessed volumes"  # kind of output folder
MANIFEST, FAILURES, DESCRIPTION, VOLUMES = "manifest.csv", "failures.csv", "cache.json", "volumes"


@dataclass(frozen=True)
class CachedCase:
    """A line of the manifest. `bytes` and `sha256` are those of the case's file."""

    case: str
    study: str
    patient: str
    bytes: int
    sha256: str
    note: str = ""


COLUMNS = tuple(field.name for field in fields(CachedCase))


@dataclass(frozen=True)
class VolumeCache:
    """A cache as training and evaluation use it.

    Attributes:
        folder: where it is.
        plan: the grid of its volumes.
        fidelity: "exact" or "reference".
        cases: case name -> line of the manifest, in the order of names.
    """

    folder: Path
    plan: PreprocessingPlan
    fidelity: str
    cases: dict[str, CachedCase]

    # Volumes are HU as stored; other holders of volumes may scale (see `arrays.ArrayVolumes`).
    slope = 1.0
    intercept = 0.0

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "VolumeCache":
        """Read description and manifest; volumes are looked at only when they are asked for.

        Raises:
            InputError: no cache, or one that is damaged or was made by another version.
        """
        folder = Path(folder)
        plan, fidelity = read_description(folder)
        cases = read_manifest(folder)
        if not cases:
            raise InputError(f"{folder}: the cache holds no volumes. Run `brgsa-training preprocess` on some scans.")
        return cls(folder, plan, fidelity, dict(sorted(cases.items())))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of every volume (X, Y, Z)."""
        return self.plan.shape

    def volume(self, case: str) -> np.ndarray:
        """Map the volume of a case, (X, Y, Z) int16 HU; only what is used of it is read.

        Raises:
            InputError: the file is missing, cut short or of another shape.
        """
        path = volume_path(self.folder, case)
        try:
            volume = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path}: is missing or cut short. Delete it and run `brgsa-training preprocess` again."
            ) from error
        if volume.shape != self.shape or volume.dtype != np.int16:
            raise InputError(f"{path}: holds {volume.shape} {volume.dtype} values. Delete it and preprocess again.")
        return volume

    def damaged(self, cases: Iterable[str] | None = None) -> Iterator[tuple[str, str | None]]:
        """For every case, in turn, give its name and what is wrong with its file, None where nothing is."""
        for name in self.cases if cases is None else cases:
            line, path = self.cases[name], volume_path(self.folder, name)
            if not path.is_file() or path.stat().st_size != line.bytes:
                yield name, "is missing or cut short"
            else:
                yield name, None if file_sha256(path) == line.sha256 else "differs from its checksum"


def volume_path(folder: Path, case: str) -> Path:
    return folder / VOLUMES / f"{case}.npy"


def write_volume(folder: Path, case: str, hu: np.ndarray) -> tuple[int, str]:
    """Write HU (X, Y, Z), rounded to whole numbers, as the volume of a case; return its bytes and SHA-256."""
    whole = np.ascontiguousarray(np.rint(hu).astype(np.int16))
    digest = hashlib.sha256()
    with atomic_open(volume_path(folder, case), "wb") as file:
        np.lib.format.write_array(_Digesting(file, digest), whole, allow_pickle=False)
        count = file.tell()
    return count, digest.hexdigest()


class _Digesting:
    """A file that computes the checksum of what passes through."""

    def __init__(self, file: IO[bytes], digest):
        self.file, self.digest = file, digest

    def write(self, data) -> int:
        self.digest.update(data)
        return self.file.write(data)


def read_description(folder: Path) -> tuple[PreprocessingPlan, str]:
    """Read the plan and the fidelity that a cache was made with.

    Raises:
        InputError: no cache, or one that this program does not know.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, fidelity = content["version"], content["fidelity"]
    except OSError as error:
        raise InputError(
            f"{folder} is not a cache ({DESCRIPTION} cannot be read). Make one with preprocess."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged. Preprocess into a new folder.") from error
    if version != CACHE_VERSION or fidelity not in FIDELITIES:
        raise InputError(
            f"{path}: the cache has version {version!r} and fidelity {fidelity!r}; this program reads version "
            f"{CACHE_VERSION}. Update brgsa or preprocess into a new folder."
        )
    try:
        return PreprocessingPlan.from_dict(content.get("plan")), fidelity
    except SetupError as error:
        raise InputError(f"{path}: {error}") from error


def claim(folder: Path, plan: PreprocessingPlan, fidelity: str) -> None:
    """Describe a new cache, or check that the one that is there was made the same way.

    Raises:
        UsageError: another plan or fidelity.
    """
    if not (folder / DESCRIPTION).exists():
        write_json(folder / DESCRIPTION, {"version": CACHE_VERSION, "fidelity": fidelity, "plan": plan.to_dict()})
        return
    if difference := different(plan, fidelity, *read_description(folder)):
        raise UsageError(f"{folder} is a cache made with another plan: {difference}. Choose another --out.")


def different(plan: PreprocessingPlan, fidelity: str, other: PreprocessingPlan, other_fidelity: str) -> str:
    """Say in words what is different in another plan, or nothing."""
    ours, theirs = plan.to_dict() | {"fidelity": fidelity}, other.to_dict() | {"fidelity": other_fidelity}
    return ", ".join(f"{name} is {theirs[name]}, not {ours[name]}" for name in ours if ours[name] != theirs[name])


def read_manifest(folder: Path) -> dict[str, CachedCase]:
    """Read the lines of a manifest; a last line that a crash cut short is not taken.

    Raises:
        InputError: another line cannot be read.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read. Preprocess into a new folder.") from error
    whole = text[: text.rfind("\n") + 1]
    rows = csv_reader(io.StringIO(whole, newline=""))
    header = next(rows, [])
    if header and tuple(header) != COLUMNS:
        raise InputError(f"{path}: its columns are {', '.join(header)}, expected {', '.join(COLUMNS)}.")
    cases = {}
    for number, row in enumerate(rows, start=2):
        try:
            case, study, patient, count, sha256, note = row
            cases[case] = CachedCase(case, study, patient, int(count), sha256, note)
        except ValueError as error:
            raise InputError(f"{path}: line {number} is damaged. Remove it and preprocess again.") from error
    return cases


@contextmanager
def growing_manifest(folder: Path, known: dict[str, CachedCase]) -> Iterator["ManifestWriter"]:
    """Give a writer that adds lines to the manifest; what is there is first written anew, whole."""
    write_csv(folder / MANIFEST, COLUMNS, map(astuple, known.values()))
    try:
        with (folder / MANIFEST).open("a", encoding="utf-8", newline="") as file:
            yield ManifestWriter(file)
    except OSError as error:
        raise write_error(folder / MANIFEST, error) from error


class ManifestWriter:
    """Adds one line per case that is done, at once, so that a crash loses none."""

    def __init__(self, file: IO[str]):
        self._file, self._writer = file, CSVWriter(file)

    def add(self, case: CachedCase) -> None:
        self._writer.writerow([" ".join(str(value).split()) for value in astuple(case)])
        self._file.flush()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()
