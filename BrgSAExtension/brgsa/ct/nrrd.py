"""Reading NRRD: the header by strict code of our own, because native parsers end the process on hostile ones.

The format: https://teem.sourceforge.net/nrrd/format.html. Voxels may be raw, gzip or bzip2, in the file or beside it.
"""

import contextlib
import math
import re
from pathlib import Path

import numpy as np

from brgsa.ct.payload import data_file, read_hu, skip, uncompressed
from brgsa.ct.source import (
    Source,
    file_size,
    header_text,
    numbers,
    open_file,
    require_plausible_size,
    require_three_axes,
    spacing_error,
)
from brgsa.errors import InputError

# Names of fields without their spaces: those that matter here, and those that may be there.
_USED = {
    "type",
    "dimension",
    "sizes",
    "endian",
    "encoding",
    "datafile",
    "lineskip",
    "byteskip",
    "space",
    "spacedimension",
    "spacedirections",
    "spaceorigin",
    "spacings",
    "axismins",
    "kinds",
    "centers",
}
_PASSED_OVER = {
    "content",
    "number",
    "blocksize",
    "min",
    "max",
    "oldmin",
    "oldmax",
    "axismaxs",
    "thicknesses",
    "labels",
    "units",
    "spaceunits",
    "sampleunits",
    "measurementframe",
}
_SAME = {"centerings": "centers"}
_TYPES = {
    "int8": "signed char|int8|int8_t",
    "uint8": "uchar|unsigned char|uint8|uint8_t",
    "int16": "short|short int|signed short|signed short int|int16|int16_t",
    "uint16": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "int32": "int|signed int|int32|int32_t",
    "uint32": "uint|unsigned int|uint32|uint32_t",
    "int64": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "uint64": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "float32": "float",
    "float64": "double",
}
_DTYPES = {name: np.dtype(dtype) for dtype, names in _TYPES.items() for name in names.split("|")}
_ENCODINGS = {"raw": None, "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
# Kinds of axes along which the volume lies; others hold the numbers of one voxel.
_DOMAINS = {"domain", "space", "time", "none", "???"}
# Which axes of a named space point the other way than Left, Posterior, Superior.
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
}


def read_nrrd(path: Path) -> tuple[np.ndarray, Source]:
    """Read a .nrrd or .nhdr file: voxels (stored axes, int16 or float32 HU) and their source.

    Raises:
        InputError: the file is missing, damaged, not a NRRD file, or not one 3-D volume of single numbers.
    """
    fields, header_bytes = _header(path)
    dtype = _dtype(path, fields)
    axes, shape, messages = _shape(path, fields)
    affine = _affine(path, fields, axes)
    encoding = fields.get("encoding", "").lower()
    if encoding not in _ENCODINGS:
        raise InputError(f"{path}: keeps its voxels in the encoding {encoding[:20]!r}; save it as raw or gzip.")
    compression = _ENCODINGS[encoding]
    data = data_file(path, fields["datafile"]) if "datafile" in fields else path
    start = 0 if data != path else header_bytes
    lines, skipped = _count(path, fields, "lineskip"), _count(path, fields, "byteskip", lowest=-1)
    claimed, size = math.prod(shape) * dtype.itemsize, file_size(data)
    if skipped == -1:  # the voxels end the file
        if compression:
            raise damaged(path)
        start, lines, skipped = max(size - claimed, start), 0, 0
    require_plausible_size(path, claimed, max(size - start, 0), compression is not None)
    if lines:
        start = _line_start(data, start, lines)

    @contextlib.contextmanager
    def opened():
        with uncompressed(data, start, compression) as stream:
            skip(data, stream, skipped)
            yield stream

    source = Source(
        path=path,
        format="nrrd",
        stored_shape=shape,
        stored_affine=affine,
        stored_dtype=dtype.newbyteorder("=").name,
        orientation_known=fields.get("space", "").lower() in _TO_LPS,
        messages=messages,
    )
    return read_hu(path, opened, shape, dtype), source


def nrrd_data_file(path: Path) -> Path | None:
    """The file that holds the voxels of a header, where it is another one.

    Raises:
        InputError: the header cannot be read, or the file is not there.
    """
    name = _header(path)[0].get("datafile")
    return name and data_file(path, name)


def damaged(path: Path) -> InputError:
    return InputError(f"{path}: is a damaged NRRD file (cut short, or a bad header); copy or export it again.")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields by their lower-case names without spaces, and the length of the header with its empty line."""
    text = header_text(path)
    if not text.startswith("NRRD000"):
        raise InputError(f"{path}: is not a NRRD file, whatever its name says; give a CT scan.")
    header, *_ = re.split(r"\r?\n\r?\n", text, maxsplit=1)
    end = re.match(r"\r?\n\r?\n", text[len(header) :])
    fields: dict[str, str] = {}
    for line in header.removesuffix("\n").split("\n")[1:]:
        line = line.removesuffix("\r")
        if line.startswith("#") or ":=" in line.split(": ")[0]:  # comments, and pairs of the writer's own
            continue
        name, colon, value = line.partition(":")
        name = "".join(name.lower().split())
        name = _SAME.get(name, name)
        if not colon or name in fields or name not in _USED | _PASSED_OVER:
            raise damaged(path)
        fields[name] = value.strip()
    if end is None and "datafile" not in fields:
        raise damaged(path)
    return fields, len(header) + (end.end() if end else 0)


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    name = " ".join(fields.get("type", "").lower().split())
    dtype = _DTYPES.get(name)
    if dtype is None:
        raise InputError(f"{path}: has voxels of the type {name[:40]!r}; give the CT itself, in HU.")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and dtype.itemsize > 1:
        raise damaged(path)
    return dtype.newbyteorder(order or "=")


def _shape(path: Path, fields: dict[str, str]) -> tuple[list[int], tuple[int, int, int], tuple[str, ...]]:
    """Which stored axes are those of the volume, their lengths, and messages."""
    words = fields.get("sizes", "").split()
    if fields.get("dimension") != str(len(words)) or not all(re.fullmatch("[0-9]{1,12}", word) for word in words):
        raise damaged(path)
    sizes = [int(word) for word in words]
    kinds = fields.get("kinds", " ".join(["none"] * len(sizes))).lower().split()
    if len(kinds) != len(sizes) or not sizes or min(sizes) < 1:
        raise damaged(path)
    axes = [axis for axis, kind in enumerate(kinds) if kind in _DOMAINS or sizes[axis] > 1]
    if any(kinds[axis] not in _DOMAINS for axis in axes):
        raise InputError(f"{path}: has several numbers per voxel (colour or vectors); give the CT itself.")
    shape, messages = require_three_axes(path, tuple(sizes[axis] for axis in axes))
    return axes[:3], shape, messages


def _affine(path: Path, fields: dict[str, str], axes: list[int]) -> np.ndarray:
    """Index to LPS mm; the axes of a space without a name are taken for Left, Posterior, Superior."""
    signs = np.array(_TO_LPS.get(fields.get("space", "").lower(), (1, 1, 1)), float)
    affine = np.eye(4)
    spacings = _per_axis(path, fields, "spacings", axes)
    if spacings is not None and not all(math.isfinite(size) and size > 0 for size in spacings):
        raise spacing_error(path, fields["spacings"])
    if "spacedirections" in fields:
        vectors = re.findall(r"\(([^()]*)\)|(none)", fields["spacedirections"])
        if len(vectors) <= axes[-1] or re.sub(r"\([^()]*\)|none|\s", "", fields["spacedirections"]):
            raise damaged(path)
        for column, axis in enumerate(axes):
            affine[:3, column] = signs * _vector(path, vectors[axis][0])
        with np.errstate(all="ignore"):
            spacing = np.sqrt(affine[0, :3] ** 2 + affine[1, :3] ** 2 + affine[2, :3] ** 2)
            affine[:3, :3] = affine[:3, :3] * (1 / spacing) * spacing  # rounded as by ITK: a scan keeps its grid
    elif spacings is not None:
        affine[:3, :3] = np.diag(spacings)
    if "spaceorigin" in fields:
        affine[:3, 3] = signs * _vector(path, fields["spaceorigin"].removeprefix("(").removesuffix(")"))
    elif (minima := _per_axis(path, fields, "axismins", axes)) and np.isfinite(minima).all():
        # The lower edge of the first voxel, or its middle.
        edge = fields.get("centers", "").split() != ["node"] * len(fields["axismins"].split())
        affine[:3, 3] = np.array(minima) + edge * np.diag(affine)[:3] / 2
    return affine


def _per_axis(path: Path, fields: dict[str, str], name: str, axes: list[int]) -> list[float] | None:
    if name not in fields:
        return None
    values = numbers(fields[name])
    if values is None or len(values) != int(fields["dimension"]):
        raise spacing_error(path, fields[name]) if name == "spacings" else damaged(path)
    return [values[axis] for axis in axes]


def _vector(path: Path, text: str) -> np.ndarray:
    values = numbers(text.replace(",", " "))
    if values is None or len(values) != 3:
        raise damaged(path)
    return np.array(values)


def _count(path: Path, fields: dict[str, str], name: str, lowest: int = 0) -> int:
    text = fields.get(name, "0")
    if not re.fullmatch("-?[0-9]{1,12}", text) or int(text) < lowest:
        raise damaged(path)
    return int(text)


def _line_start(path: Path, start: int, lines: int) -> int:
    """Where the voxels begin behind so many lines."""
    with open_file(path) as file:
        file.seek(start)
        while lines and (block := file.readline(1 << 16)):
            lines -= block.endswith(b"\n")
        if lines:
            raise damaged(path)
        return file.tell()
