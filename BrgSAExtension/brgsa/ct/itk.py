"""Reading NRRD and MetaImage through SimpleITK, and keeping SimpleITK quiet."""

import contextlib
import functools
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from brgsa.ct.source import Source, file_size, open_file, require_plausible_size, require_three_axes, to_hu
from brgsa.errors import InputError

_IO = {"nrrd": "NrrdImageIO", "metaimage": "MetaImageIO"}
_NAME = {"nrrd": "NRRD", "metaimage": "MetaImage"}
_HEADER_LIMIT = 1 << 18
# MetaImage fields that hold one number per axis (1) or a matrix (2).
_METAIMAGE_NUMBERS = {
    "dimsize": 1,
    "elementspacing": 1,
    "elementsize": 1,
    "offset": 1,
    "position": 1,
    "origin": 1,
    "centerofrotation": 1,
    "transformmatrix": 2,
    "orientation": 2,
    "rotation": 2,
}


@functools.cache
def quiet_simpleitk() -> ModuleType:
    """Import SimpleITK with its warnings off: what matters in them becomes a message or a finding."""
    import SimpleITK as sitk  # noqa: N813 (its customary name)

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def sitk_name(path: Path) -> str:
    """The path as SimpleITK takes it.

    Raises:
        InputError: the name is not UTF-8; SimpleITK would end the process.
    """
    name = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not UTF-8, so SimpleITK cannot open it; rename it.") from error
    return name


def read_itk_image(path: Path, kind: str) -> tuple[np.ndarray, Source]:
    """Read a NRRD ("nrrd") or MetaImage ("metaimage") file: voxels (stored axes, int16 or float32 HU) and their source.

    Raises:
        InputError: the file is missing, damaged, of another format, or not one 3-D volume of single numbers.
    """
    sitk = quiet_simpleitk()
    fields = _header_fields(path, kind)
    reader = sitk.ImageFileReader()
    reader.SetFileName(sitk_name(path))
    reader.SetImageIO(_IO[kind])
    quiet = _silent_stderr if kind == "metaimage" else contextlib.nullcontext
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _damaged(path, kind) from error
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: has several numbers per voxel (colour or vectors); give the CT itself.")
    shape, messages = require_three_axes(path, tuple(int(length) for length in reader.GetSize()))
    _require_data(path, kind, fields, reader)
    try:
        with quiet():
            image = reader.Execute()
        voxels = sitk.GetArrayFromImage(image).reshape(shape[::-1]).transpose(2, 1, 0)
    except RuntimeError as error:
        raise _damaged(path, kind) from error
    if voxels.dtype.kind not in "iuf":
        raise InputError(f"{path}: has {voxels.dtype} voxels; give the CT itself, with one number in HU per voxel.")
    axes = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    known = bool(fields.keys() & {"space", "transformmatrix", "orientation", "rotation"})
    source = Source(
        path=path,
        format=kind,
        stored_shape=shape,
        stored_affine=affine,
        stored_dtype=voxels.dtype.name,
        orientation_known=known,
        messages=messages,
    )
    return to_hu(voxels, 1.0, 0.0), source


def _damaged(path: Path, kind: str) -> InputError:
    return InputError(f"{path}: is a damaged {_NAME[kind]} file (cut short, or a bad header); copy or export it again.")


def _header_fields(path: Path, kind: str) -> dict[str, str]:
    """Read the text header: lower-case field names and their values.

    Raises:
        InputError: the file does not start as this format does, or a spacing is zero or negative.
    """
    file_size(path)
    with open_file(path) as file:
        head = file.read(_HEADER_LIMIT)
    if kind == "nrrd":
        if not head.startswith(b"NRRD000"):
            raise InputError(f"{path}: is not a NRRD file, whatever its name says; give a CT scan.")
        head = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
        pairs = re.findall(r"^([^:=#\n]+):=?[ \t]*(.*?)\r?$", head.decode("utf-8", "replace"), re.MULTILINE)
        fields = {name.strip().lower(): value.strip() for name, value in pairs}
    else:
        fields = _metaimage_fields(path, head)
    for name in ("spacings", "elementspacing"):
        _require_spacing(path, fields.get(name, ""))
    return fields


def _metaimage_fields(path: Path, head: bytes) -> dict[str, str]:
    """Read a MetaImage header strictly, because SimpleITK's own parser can crash the process on a damaged one."""
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\n"):
        match = re.fullmatch(r"([A-Za-z]\w*)[ \t]*=[ \t]*(.*?)[ \t]*\r?", line)
        if match is None:
            if not fields:
                raise InputError(f"{path}: is not a MetaImage file, whatever its name says; give a CT scan.")
            raise _damaged(path, "metaimage")
        name = match[1].lower()
        if name in fields:
            raise _damaged(path, "metaimage")
        fields[name] = match[2]
        if name == "elementdatafile":
            break
    axes = fields.get("ndims", "")
    known = fields.get("objecttype") == "Image" and re.fullmatch(r"MET_[A-Z_]+", fields.get("elementtype", ""))
    if not (known and "elementdatafile" in fields and re.fullmatch("[1-9]", axes) and "dimsize" in fields):
        raise _damaged(path, "metaimage")
    names = list(fields)
    for name, count in _METAIMAGE_NUMBERS.items():
        words = fields.get(name, "").split()
        if name in fields and (len(words) != int(axes) ** count or names.index(name) < names.index("ndims")):
            raise _damaged(path, "metaimage")
    return fields


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ code prints on standard error: MetaImage's parser prints past all of SimpleITK's switches."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device, not a path of ours)
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_spacing(path: Path, text: str) -> None:
    for word in text.split():
        try:
            good = math.isfinite(float(word)) and float(word) > 0
        except ValueError:
            good = False
        if not good:
            raise InputError(f"{path}: the header gives the spacing {text!r}; correct it and save the scan again.")


def _require_data(path: Path, kind: str, fields: dict[str, str], reader) -> None:
    """Compare what the header promises with what the data file holds.

    Raises:
        InputError: the data file is missing, lies outside plain files, or is too small.
    """
    sitk = quiet_simpleitk()
    bits = np.dtype(_numpy_name(sitk.GetPixelIDValueAsString(reader.GetPixelID()))).itemsize
    claimed = math.prod(int(length) for length in reader.GetSize()) * bits
    if kind == "nrrd":
        name = fields.get("data file", fields.get("datafile"))
        compressed = fields.get("encoding", "raw").lower() != "raw"
    else:
        name = fields["elementdatafile"]
        name = None if name.upper() == "LOCAL" else name
        compressed = fields.get("compresseddata", "false").lower().startswith(("t", "1"))
    if name is not None and ("%" in name or name.upper().startswith("LIST")):
        raise InputError(f"{path}: keeps its voxels in a list of files; save it as one .nrrd or .nii.gz file.")
    data = path if name is None else path.parent / name
    if not os.path.isfile(data):  # noqa: PTH113 (Path.is_file raises on a name that is too long)
        raise InputError(f"{path}: its voxels should be in {data}, which is not there; copy both files together.")
    require_plausible_size(path, claimed, file_size(data), compressed)


def _numpy_name(pixel_type: str) -> str:
    """Turn SimpleITK's "16-bit signed integer" into "int16"."""
    bits = re.search(r"\d+", pixel_type)
    kind = "float" if "float" in pixel_type else "uint" if "unsigned" in pixel_type else "int"
    return kind + (bits.group() if bits else "8")
