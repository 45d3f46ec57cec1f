"""Which DICOM series a folder holds, and which of them is the chest CT to read."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from brgsa.ct.dicom_header import (
    PIXEL_DATA_TAG,
    Image,
    file_content,
    folder_files,
    is_dicom,
    placed_frames,
    read_header,
)
from brgsa.ct.names import series_key
from brgsa.ct.source import file_size
from brgsa.errors import InputError, UsageError

# Slices nearer to each other than this are repeats of one position (mm).
SAME_POSITION = 0.01
_OTHER_OBJECTS = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "RWV", "FID"}


@dataclass(frozen=True)
class Series:
    """One series in a folder. `slices` counts the different positions of its largest run of equal geometry.

    `orientation` is "axial", "coronal", "sagittal" or "unknown"; `localizer` marks scout images.
    """

    uid: str = field(repr=False)
    modality: str
    description: str = field(repr=False)
    number: int
    slices: int
    orientation: str
    localizer: bool
    images: tuple[Image, ...] = field(repr=False)
    repeats: int = field(default=0, repr=False)
    left_out: int = field(default=0, repr=False)

    def __str__(self) -> str:
        kind = "localizer" if self.localizer else self.orientation
        return f"number {self.number} ({self.modality}, {kind}, {self.slices} slices)"


def list_series(folder: str | Path) -> list[Series]:
    """List the DICOM image series that lie directly in a folder, the one that `read_ct` would take first.

    The order is: CT, not a localizer, axial, most slices; then the lower series number and UID. Files that are no DICOM
    images are passed over. Nothing but headers is read.

    Raises:
        InputError: the folder is missing, cannot be read, or holds no DICOM images.
    """
    return _scan(Path(folder))[0]


def _scan(folder: Path) -> tuple[list[Series], list[Path]]:
    """Give the series of a folder, and the DICOM files in it that hold no readable image."""
    images, others = [], []
    for path in folder_files(folder):
        if is_dicom(path):
            image = read_header(path)
            (others if image is None else images).append(image or path)
    if not images:
        raise InputError(f"{folder}: the folder holds no DICOM images; give the folder in which the .dcm files lie.")
    by_uid = defaultdict(list)
    for image in images:
        by_uid[image.uid].append(image)
    return sorted((_series(members) for members in by_uid.values()), key=_preference), others


def _series(members: list[Image]) -> Series:
    """Sort out the images of one series: the largest run of equal geometry, in order, each position once."""
    runs = Counter(image.geometry for image in members)
    geometry = max(runs, key=lambda key: (runs[key] * key[2], str(key)))
    run = sorted((image for image in members if image.geometry == geometry), key=lambda i: (i.instance, i.path.name))
    left_out, repeats = len(members) - len(run), 0
    first = run[0]
    if first.frames > 1:
        left_out, run = left_out + len(run) - 1, run[:1]
    elif first.orientation is not None:
        placed = sorted((image for image in run if image.position is not None), key=lambda image: image.depth)
        kept = placed[:1] + [b for a, b in pairwise(placed) if b.depth - a.depth > SAME_POSITION]
        left_out, repeats = left_out + len(run) - len(placed), len(placed) - len(kept)
        run = kept or run
    return Series(
        uid=first.uid,
        modality=first.modality,
        description=first.description,
        number=first.number,
        slices=first.frames if first.frames > 1 else len(run),
        orientation=_plane((placed_frames(first)[0] if first.frames > 1 else first).normal),
        localizer=first.localizer,
        images=tuple(run),
        repeats=repeats,
        left_out=left_out,
    )


def _plane(normal: np.ndarray | None) -> str:
    return "unknown" if normal is None else ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]


def _preference(series: Series) -> tuple:
    return (
        series.modality != "CT",
        series.modality in _OTHER_OBJECTS,
        series.localizer,
        series.orientation != "axial",
        -series.slices,
        series.number,
        series.uid,
    )


def choose_series(path: Path, series: str | None) -> tuple[Series, list[str]]:
    """Find the series to read and say how it was chosen."""
    if path.is_dir():
        found, others = _scan(path)
        chosen = found[0] if series is None else _named(path, found, series)
        messages = _choice_messages(found, others) if series is None else []
    else:
        file_size(path)
        image = read_header(path)
        if image is None:
            raise InputError(f"{path}: is not a readable DICOM image; give the folder or a file of a CT series.")
        if series is not None and not _is(image, series):
            raise UsageError(f"{path} belongs to another series, number {image.number}; give its folder instead.")
        if image.frames > 1:
            return _series([image]), []
        found, others = _scan(path.parent)
        chosen = _named(path.parent, found, image.uid)
        messages = [f"read the whole series of {path.name} from its folder ({chosen.slices} slices)"]
    _require_readable(chosen, others)
    return chosen, messages


def _require_readable(chosen: Series, others: Iterable[Path]) -> None:
    """Refuse a series when one of the unreadable files names it: a slice would be missing without a word.

    Raises:
        InputError: naming the file.
    """
    for path in others:
        if path.stat().st_size == 0:
            continue
        with file_content(path) as content:
            if content.find(chosen.uid.encode()) >= 0 and content.find(PIXEL_DATA_TAG) >= 0:
                raise InputError(f"{path}: this slice of the series is cut short or damaged; copy it again.")


def _choice_messages(found: list[Series], others: list[Path]) -> list[str]:
    messages = []
    if len(found) > 1:
        rest = "; ".join(str(other) for other in found[1:])
        messages.append(
            f"the folder holds {len(found)} series; took {found[0]}; the others are {rest}; --series NUMBER chooses"
        )
    if others:
        messages.append(f"{len(others)} DICOM files without a readable image were left out (first: {others[0].name})")
    return messages


def _named(folder: Path, found: Iterable[Series], series: str) -> Series:
    named = [candidate for candidate in found if _is(candidate, series)]
    if len(named) == 1:
        return named[0]
    listed = "; ".join(map(str, found))
    if named:
        raise UsageError(f"{folder}: {len(named)} series have that number, give the UID of one; there are: {listed}")
    raise UsageError(f"{folder}: there is no such series; choose one of: {listed}")


def _is(one: Series | Image, series: str) -> bool:
    """Whether a series is meant by a UID, the digest of one, or a number."""
    return series == one.uid or series_key(series) in (series_key(one.uid), str(one.number))
