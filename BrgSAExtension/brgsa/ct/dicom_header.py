"""The header of one DICOM file, read through SimpleITK (GDCM) and, where that says too little, from its bytes."""

import contextlib
import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brgsa.ct.decoder import DECODER, DamagedError
from brgsa.ct.source import file_format, file_size, open_file, require_plausible_size, unreadable

_META_END = 132
_IMPLICIT_SYNTAX = b"1.2.840.10008.1.2\0"
# Types whose length takes four bytes after two that are reserved.
_LONG_TYPES = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_TYPES = set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# PS3.3 C.7.3.1.1.1, those that a folder of scans may hold.
_MODALITIES = set(
    b"AR AU BI CR CT DOC DX ECG EM EPS ES FID GM HC HD IO IVOCT IVUS KO LS MG MR NM OAM OCT OP OPM OPT OPV OSS OT PLAN "
    b"PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SC SEG SM SR SRF STAIN TG US VA XA XC".split()
)
_ITEM_GROUP = b"\xfe\xff"
_UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_DATA_TAG = b"\xe0\x7f\x10\x00"
# Elements as they stand in a file's header, with or without their explicit type; nested ones too, which SimpleITK does
# not hand over.
_NUMBERS = rb"(?:DS..|..\x00\x00)([-+0-9.eE \\]+)"
_POSITION = re.compile(rb"\x20\x00\x32\x00" + _NUMBERS, re.DOTALL)
_ORIENTATION = re.compile(rb"\x20\x00\x37\x00" + _NUMBERS, re.DOTALL)
_PIXEL_SPACING = re.compile(rb"\x28\x00\x30\x00" + _NUMBERS, re.DOTALL)


@dataclass(frozen=True)
class Image:
    """The header of one DICOM file, without anything about the patient. Lengths are in mm, positions in LPS."""

    path: Path
    uid: str = field(repr=False)
    modality: str
    description: str = field(repr=False)
    number: int
    instance: int
    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    pixel_spacing: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    localizer: bool

    @property
    def geometry(self) -> tuple:
        """What the slices of one volume have in common."""
        spacing = self.pixel_spacing and tuple(round(value, 4) for value in self.pixel_spacing)
        cosines = self.orientation and tuple(round(value, 3) + 0.0 for value in self.orientation)
        return self.rows, self.columns, self.frames, spacing, cosines, self.localizer

    @property
    def normal(self) -> np.ndarray | None:
        """The slice normal: row direction x column direction."""
        return None if self.orientation is None else np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth(self) -> float:
        """Position along the normal (mm)."""
        return float(np.dot(self.normal, self.position))


def folder_files(folder: Path) -> list[Path]:
    """List the files of a folder that are not hidden, in the order of their names.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError as error:
        raise unreadable(folder, error) from error


def is_dicom(path: Path) -> bool:
    return path.name.upper() != "DICOMDIR" and file_format(path) == "dicom"


def read_header(path: Path) -> Image | None:
    """Read one file's DICOM header; None when it is not a DICOM image.

    Raises:
        InputError: the file cannot be opened, its name is not UTF-8, or SimpleITK died of it.
    """
    if not is_dicom(path) or path.stat().st_size == 0:
        return None
    with file_content(path) as content:
        if not _lengths_fit(content):
            return None
    try:
        header = DECODER.header(path)
    except DamagedError:
        return None

    def text(tag: str) -> str:
        # SimpleITK takes the bytes for UTF-8 and marks those that are not; most of them are Latin-1.
        raw = header["tags"].get(tag, "").encode("utf-8", "surrogateescape")
        try:
            return raw.decode("utf-8").strip(" \0")
        except UnicodeDecodeError:
            return raw.decode("latin-1").strip(" \0")

    cosines = _numbers(text("0020|0037"), 6)
    size = header["size"]
    return Image(
        path=path,
        uid=text("0020|000e"),
        modality=_modality(text("0008|0060")),
        description=" ".join(text("0008|103e").split()),
        number=int(_number(text("0020|0011"), 0)),
        instance=int(_number(text("0020|0013"), 0)),
        rows=int(size[1]),
        columns=int(size[0]),
        frames=int(size[2]) if len(size) > 2 else 1,
        samples=header["components"],
        bits=int(_number(text("0028|0100"), 16)),
        pixel_spacing=_numbers(text("0028|0030"), 2),
        orientation=cosines if cosines and np.linalg.norm(np.cross(cosines[:3], cosines[3:])) > 0.5 else None,
        position=_numbers(text("0020|0032"), 3),
        thickness=_number(text("0018|0050"), None),
        slope=_number(text("0028|1053"), 1.0),
        intercept=_number(text("0028|1052"), 0.0),
        localizer="LOCALIZER" in text("0008|0008").upper(),
    )


def _modality(text: str) -> str:
    """The modality, if it is one of the standard's: it is shown, and a damaged header may hold anything there."""
    return text if not text or text.encode() in _MODALITIES else "unknown"


def _lengths_fit(content: mmap.mmap) -> bool:
    """Whether every element up to the pixels ends within the file: GDCM sets memory aside for any length it is told."""
    if content[128:_META_END] != b"DICM":
        return True
    implicit = content.find(_IMPLICIT_SYNTAX, 0, 1024) >= 0
    size, at = len(content), _META_END
    while at + 8 <= size:
        tag, kind = content[at : at + 4], content[at + 4 : at + 6]
        if tag[:2] == _ITEM_GROUP or (implicit and tag[:2] != b"\x02\x00"):
            start, length = at + 8, int.from_bytes(content[at + 4 : at + 8], "little")
        elif kind not in _LONG_TYPES | _SHORT_TYPES:
            # No explicit type after all, which GDCM takes as an implicit one.
            return at + 8 + int.from_bytes(content[at + 4 : at + 8], "little") <= size
        elif kind in _LONG_TYPES:
            start, length = at + 12, int.from_bytes(content[at + 8 : at + 12], "little")
        else:
            start, length = at + 8, int.from_bytes(content[at + 6 : at + 8], "little")
        if length != _UNDEFINED_LENGTH and start + length > size:
            return False
        if tag == PIXEL_DATA_TAG:
            return True
        # Sequences and items are entered, not skipped.
        entered = length == _UNDEFINED_LENGTH or tag[:2] == _ITEM_GROUP or (kind == b"SQ" and not implicit)
        at = start if entered else start + length
    return True


def _number(text: str, default):
    numbers = _numbers(text, 1)
    return default if numbers is None else numbers[0]


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(word) for word in text.split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


@contextlib.contextmanager
def file_content(path: Path) -> Iterator[mmap.mmap]:
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def require_pixels(image: Image) -> None:
    """Refuse a header that promises more pixels than the file can hold, before memory is set aside for them.

    Raises:
        InputError: naming the file.
    """
    size = file_size(image.path)
    length = image.rows * image.columns * image.frames * image.samples * image.bits // 8
    require_plausible_size(image.path, length, size, compressed=True)


def placed_frames(image: Image) -> tuple[Image, np.ndarray | None]:
    """Complete a multi-frame file's header from its functional groups, and give the frames' positions (frames, 3).

    GDCM's own geometry is not used: it is lost where frames are not stored in the order of their positions.
    """
    with file_content(image.path) as content:
        # Pixel data come last in the file; nothing behind their tag is a header.
        end = content.rfind(PIXEL_DATA_TAG)
        found = {
            pattern: [_numbers(match[1].decode("ascii"), count) for match in pattern.finditer(content, 0, end)]
            for pattern, count in ((_POSITION, 3), (_ORIENTATION, 6), (_PIXEL_SPACING, 2))
        }
    for pattern, name in ((_ORIENTATION, "orientation"), (_PIXEL_SPACING, "pixel_spacing")):
        different = set(found[pattern])
        if len(different) == 1:
            image = replace(image, **{name: different.pop()})
    positions = found[_POSITION]
    usable = len(positions) == image.frames and None not in positions and image.orientation is not None
    return image, np.array(positions) if usable else None
