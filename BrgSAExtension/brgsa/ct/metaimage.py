"""Reading MetaImage: the header by strict code of our own, because native parsers end the process on hostile ones.

The format: https://itk.org/Wiki/MetaIO/Documentation. Voxels may be raw or compressed, in the file or beside it.
"""

import functools
import math
import re
from pathlib import Path

import numpy as np

from brgsa.ct.payload import GZIP_MARK, data_file, read_hu, uncompressed
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

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_TRUE = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_SPACINGS, _MATRICES, _ORIGINS = (
    ("ElementSpacing", "ElementSize"),
    ("TransformMatrix", "Orientation", "Rotation"),
    ("Offset", "Position", "Origin"),
)


def read_metaimage(path: Path) -> tuple[np.ndarray, Source]:
    """Read a .mha or .mhd file: voxels (stored axes, int16 or float32 HU) and their source.

    Raises:
        InputError: the file is missing, damaged, not a MetaImage file, or not one 3-D volume of single numbers.
    """
    fields, header_bytes = _header(path)
    sizes = fields.get("DimSize", "").split()
    if not re.fullmatch("[1-9]", fields.get("NDims", "")) or not all(re.fullmatch("[0-9]{1,12}", n) for n in sizes):
        raise damaged(path)
    axes = int(fields["NDims"])
    if fields.get("ObjectType") != "Image" or len(sizes) != axes:
        raise damaged(path)
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(f"{path}: has several numbers per voxel (colour or vectors); give the CT itself.")
    shape, messages = require_three_axes(path, tuple(map(int, sizes)))
    affine, known = _affine(path, fields, axes)
    name = fields.get("ElementType", "")
    if name not in _DTYPES:
        raise InputError(f"{path}: has voxels of the type {name[:40]!r}; give the CT itself, in HU.")
    msb = _flag(path, fields, "BinaryDataByteOrderMSB", _flag(path, fields, "ElementByteOrderMSB", False))
    dtype = np.dtype((">" if msb else "<") + _DTYPES[name])
    if not _flag(path, fields, "BinaryData", True):
        raise InputError(f"{path}: keeps its voxels as text; save it as one .nrrd or .nii.gz file.")
    data, start = _place(path, fields, header_bytes)
    compressed = _flag(path, fields, "CompressedData", False)
    claimed, size = math.prod(shape) * dtype.itemsize, file_size(data)
    if start is None:  # the voxels end the file
        start = max(size - claimed, 0)
    require_plausible_size(path, claimed, max(size - start, 0), compressed)
    compression = None
    if compressed:
        with open_file(data) as file:
            file.seek(start)
            compression = "gzip" if file.read(2) == GZIP_MARK else "zlib"
    source = Source(
        path=path,
        format="metaimage",
        stored_shape=shape,
        stored_affine=affine,
        stored_dtype=dtype.newbyteorder("=").name,
        orientation_known=known,
        messages=messages,
    )
    return read_hu(path, functools.partial(uncompressed, data, start, compression), shape, dtype), source


def metaimage_data_file(path: Path) -> Path | None:
    """The file that holds the voxels of a header, where it is another one.

    Raises:
        InputError: the header cannot be read, or the file is not there.
    """
    name = _header(path)[0]["ElementDataFile"]
    return None if name.upper() == "LOCAL" else data_file(path, name)


def damaged(path: Path) -> InputError:
    return InputError(f"{path}: is a damaged MetaImage file (cut short, or a bad header); copy or export it again.")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields, spelled as the format spells them, and the length of the header in bytes.

    Fields of the writer's own may be there, under names as ITK keeps them (`dim[0]`, `0008|0060`); a name that differs
    from one that is read by upper and lower case only is refused, because programs disagree about it.
    """
    text = header_text(path)
    fields: dict[str, str] = {}
    known = {"ObjectType", "NDims", "DimSize", "ElementType", "ElementDataFile", "ElementNumberOfChannels"}
    known |= {"BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData", "HeaderSize"}
    spelled = {name.lower(): name for name in known.union(_SPACINGS, _MATRICES, _ORIGINS)}
    at = 0
    while "ElementDataFile" not in fields:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end + 1
        match = re.fullmatch(r"([^\s=][^=\r\n]*?)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?\n?", text[at:end])
        if match is None or spelled.get(match[1].lower(), match[1]) != match[1] or match[1] in fields:
            if not fields:
                raise InputError(f"{path}: is not a MetaImage file, whatever its name says; give a CT scan.")
            raise damaged(path)
        fields[match[1]] = match[2]
        at = end
    return fields, at


def _affine(path: Path, fields: dict[str, str], axes: int) -> tuple[np.ndarray, bool]:
    """Index to LPS mm, and whether the header says how the axes lie."""
    spacing = _numbers(path, fields, _SPACINGS, axes)
    matrix = _numbers(path, fields, _MATRICES, axes * axes)
    origin = _numbers(path, fields, _ORIGINS, axes)
    if spacing is None:
        spacing = [1.0] * axes
    if not all(math.isfinite(size) and size > 0 for size in spacing):
        raise spacing_error(path, " ".join(f"{size:g}" for size in spacing))
    direction = np.eye(axes) if matrix is None else np.reshape(matrix, (axes, axes)).T
    affine = np.eye(4)
    with np.errstate(all="ignore"):
        affine[:3, :3] = direction[:3, :3] * np.array(spacing[:3])
    affine[:3, 3] = 0.0 if origin is None else origin[:3]
    return affine, matrix is not None


def _numbers(path: Path, fields: dict[str, str], names: tuple[str, ...], count: int) -> list[float] | None:
    """The numbers of the one of these fields that is there."""
    found = [fields[name] for name in names if name in fields]
    if not found:
        return None
    values = numbers(found[0])
    if names is _SPACINGS and values is None:
        raise spacing_error(path, found[0])
    if values is None or len(values) != count or (len(found) > 1 and names is not _SPACINGS):
        raise damaged(path)
    return values


def _flag(path: Path, fields: dict[str, str], name: str, default: bool) -> bool:
    value = _TRUE.get(fields[name].lower()) if name in fields else default
    if value is None:
        raise damaged(path)
    return value


def _place(path: Path, fields: dict[str, str], header_bytes: int) -> tuple[Path, int | None]:
    """The file with the voxels and where they begin in it; None: at the end."""
    name, size = fields["ElementDataFile"], fields.get("HeaderSize", "0")
    if not re.fullmatch("-1|[0-9]{1,12}", size):
        raise damaged(path)
    if name.upper() == "LOCAL":
        return path, header_bytes
    return data_file(path, name), None if size == "-1" else int(size)
