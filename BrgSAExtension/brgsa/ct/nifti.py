"""Reading NIfTI: geometry by nibabel, voxels straight into their final buffer."""

import contextlib
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from brgsa.ct.payload import GZIP_MARK, read_hu, skip, uncompressed
from brgsa.ct.source import Source, file_size, open_file, require_plausible_size, require_three_axes
from brgsa.errors import InputError

_MM_PER_UNIT = {1: 1000.0, 3: 0.001}


def read_nifti(path: Path) -> tuple[np.ndarray, Source]:
    """Read a .nii or .nii.gz file: voxels (stored axes, int16 or float32 HU) and their source.

    The affine is the s-form where it is set, else the q-form, else the voxel sizes alone (orientation not known), as in
    nibabel. scl_slope and scl_inter are applied once.

    Raises:
        InputError: the file is missing, damaged, not a NIfTI file, or not one 3-D volume of single numbers.
    """
    size = file_size(path)
    with open_file(path) as file:
        compression = "gzip" if file.read(2) == GZIP_MARK else None
    with uncompressed(path, 0, compression) as stream:
        header, header_bytes = _header(path, stream)
    dtype = _dtype(path, header)
    stored_shape, messages = _shape(path, header)
    affine, known = _affine_lps(path, header)
    slope, intercept = _scaling(path, header)
    offset = _data_offset(path, header, header_bytes)
    claimed = math.prod(stored_shape) * dtype.itemsize
    require_plausible_size(path, claimed, size if compression else max(size - offset, 0), compression is not None)

    @contextlib.contextmanager
    def opened():
        with uncompressed(path, 0, compression) as stream:
            skip(path, stream, offset)
            yield stream

    voxels = read_hu(path, opened, stored_shape, dtype, slope, intercept)
    source = Source(
        path=path,
        format="nifti",
        stored_shape=stored_shape,
        stored_affine=affine,
        stored_dtype=dtype.newbyteorder("=").name,
        slope=slope,
        intercept=intercept,
        orientation_known=known,
        messages=messages,
    )
    return voxels, source


def _read(path: Path, stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise InputError(f"{path}: is not a NIfTI file, or is cut short in its header; export the scan again.")
    return data


def _header(path: Path, stream: BinaryIO):
    """Return nibabel's header and the number of bytes it took."""
    import nibabel

    raw = _read(path, stream, 348)
    for order in ("little", "big"):
        length = int.from_bytes(raw[:4], order)
        if length == 348 and raw[344:348] == b"n+1\0":
            return nibabel.Nifti1Header(raw, endianness=order, check=False), 348
        if length == 348 and raw[344:348] == b"ni1\0":
            raise InputError(f"{path}: is one half of a .hdr/.img pair; convert the pair to one .nii.gz file.")
        if length == 540 and raw[4:8] == b"n+2\0":
            raw += _read(path, stream, 540 - 348)
            return nibabel.Nifti2Header(raw, endianness=order, check=False), 540
    raise InputError(f"{path}: is not a NIfTI file, whatever its name says; give a CT scan.")


def _dtype(path: Path, header) -> np.dtype:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel has its own error types for this, differing by version
        raise InputError(f"{path}: has the unknown voxel type {code}; store the scan as int16 or float32.") from error
    if dtype.kind not in "iuf":
        kind = "colour" if dtype.kind == "V" else "complex"
        raise InputError(f"{path}: has {kind} voxels; give the CT itself, with one number in HU per voxel.")
    return dtype


def _shape(path: Path, header) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise InputError(f"{path}: the header gives the size {dim}, which is not possible; export the scan again.")
    return require_three_axes(path, tuple(dim[1 : dim[0] + 1]))


def _affine_lps(path: Path, header) -> tuple[np.ndarray, bool]:
    with np.errstate(invalid="ignore"):
        spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
        sizes = ", ".join(f"{value:g}" for value in spacing)
        raise InputError(f"{path}: the header gives voxels of {sizes} mm; correct the spacing and save the scan again.")
    try:
        with np.errstate(all="ignore"):
            affine = np.array(header.get_best_affine(), dtype=np.float64)
    except Exception as error:  # a quaternion longer than 1, a bad sign factor, ...: nibabel's own error types
        raise InputError(f"{path}: the orientation in the header is damaged; export the scan again.") from error
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    with np.errstate(all="ignore"):
        affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, known


def _scaling(path: Path, header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the NIfTI way to say that values are stored as they are
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(f"{path}: the rescaling in the header ({slope}, {intercept}) is damaged; export it again.")
    return slope, intercept


def _data_offset(path: Path, header, header_bytes: int) -> int:
    offset = float(header["vox_offset"])
    if offset == 0:
        return header_bytes + 4
    if not math.isfinite(offset) or offset < header_bytes:
        raise InputError(f"{path}: the header says that voxels start at byte {offset:g}; export the scan again.")
    return int(offset)
