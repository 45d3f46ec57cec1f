"""Reading a CT: any supported file or folder becomes HU voxels whose axes grow Left, Posterior, Superior.

>>> from brgsa.ct.volume import read_ct
>>> volume = read_ct("scan.nii.gz")                                                        # doctest: +SKIP
>>> volume.voxels.shape, volume.spacing, volume.source.stored_axes                         # doctest: +SKIP
((512, 512, 300), (0.7, 0.7, 1.0), 'RAS')
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brgsa.ct.cases import Case, find_cases
from brgsa.ct.dicom import read_dicom
from brgsa.ct.dicom_series import Series, list_series
from brgsa.ct.metaimage import read_metaimage
from brgsa.ct.nifti import read_nifti
from brgsa.ct.nrrd import read_nrrd
from brgsa.ct.source import EXTENSIONS, Source, file_format, file_size, nearest_axes, require_finite
from brgsa.errors import InputError, OutOfMemoryError, UsageError

__all__ = ["CTVolume", "Case", "Series", "Source", "find_cases", "list_series", "read_ct"]

# Spacings outside this range (mm) mean a header in another unit or a damaged one.
_SPACING_RANGE = (0.01, 100.0)
# Volume of the box spanned by the three unit axis directions; 1 when they are at right angles.
_FLATTEST_AXES = 0.1
_READERS = {"nifti": read_nifti, "nrrd": read_nrrd, "metaimage": read_metaimage}


@dataclass(frozen=True)
class CTVolume:
    """A CT in memory.

    Attributes:
        voxels: (X, Y, Z) HU, int16 where the file holds whole numbers, else float32. Index axes grow Left, Posterior,
            Superior (nearest axes, by permutation and flips; nothing is interpolated). Usually a strided view of the
            array that was read, not C-contiguous.
        spacing: mm along X, Y, Z.
        affine: 4x4 float64, index (X, Y, Z, 1) to LPS world mm. Oblique and sheared axes stay as they are.
        source: the file, how it stores the volume, and what was decided while reading it.
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    source: Source

    def to_stored(self, array: np.ndarray) -> np.ndarray:
        """Carry an array on this volume's index grid, (X, Y, Z, ...), back to the file's own axis order, as a view.

        With `source.stored_affine` the result lies on the scan as the file stores it.
        """
        if array.shape[:3] != self.voxels.shape:
            raise ValueError(f"expected an array of shape {self.voxels.shape}, got {array.shape}")
        order, signs = nearest_axes(self.source.stored_affine)
        flipped = array[tuple(slice(None, None, sign) for sign in signs)]
        return flipped.transpose(*np.argsort(order), *range(3, array.ndim))


def read_ct(path: str | os.PathLike, series: str | None = None) -> CTVolume:
    """Read a NIfTI, NRRD or MetaImage file, a DICOM folder or a DICOM file. The header's rescaling is applied once.

    Of a folder with several DICOM series the axial CT series with the most slices is read, and `source.messages` says
    so; `series` (a UID) chooses another. A DICOM file stands for its whole series, in its folder.

    Raises:
        InputError: missing, empty, damaged or cut-short file; not one 3-D volume of single finite numbers; no spacing.
        UsageError: `series` is not there, or the input is not DICOM.
        OutOfMemoryError: the volume does not fit into memory.
    """
    path = Path(path)
    kind = _kind(path)
    if series is not None and kind != "dicom":
        raise UsageError(f"{path}: --series applies to DICOM only; leave it out.")
    try:
        voxels, source = read_dicom(path, series) if kind == "dicom" else _READERS[kind](path)
        _require_geometry(source)
        require_finite(path, voxels)
    except MemoryError as error:
        raise OutOfMemoryError(f"{path}: the volume does not fit into memory; use a machine with more.") from error
    return _canonical(voxels, source)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "dicom"
    file_size(path)
    kind = file_format(path)
    if kind is None:
        known = ", ".join(EXTENSIONS)
        raise InputError(f"{path}: is not an image of a known kind; give a DICOM folder or file, or one of {known}.")
    return kind


def _require_geometry(source: Source) -> None:
    """Raise InputError where the affine does not place the voxels in space."""
    path, affine = source.path, source.stored_affine
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        flatness = abs(np.linalg.det(affine[:3, :3] / spacing))
    if not np.all(np.isfinite(affine)):
        raise InputError(f"{path}: the orientation in the header is not made of numbers; export the scan again.")
    if spacing.min() < _SPACING_RANGE[0] or spacing.max() > _SPACING_RANGE[1]:
        sizes = ", ".join(f"{value:g}" for value in spacing)
        raise InputError(f"{path}: the header gives voxels of {sizes} mm; correct the spacing and save the scan again.")
    if not flatness >= _FLATTEST_AXES:
        raise InputError(f"{path}: the axes in the header lie in one plane (singular affine); export the scan again.")


def _canonical(voxels: np.ndarray, source: Source) -> CTVolume:
    """Permute and flip the stored axes so that they grow Left, Posterior, Superior."""
    order, signs = nearest_axes(source.stored_affine)
    to_stored = np.zeros((4, 4))
    to_stored[3, 3] = 1.0
    for axis, (stored, sign) in enumerate(zip(order, signs, strict=True)):
        to_stored[stored, axis] = sign
        to_stored[stored, 3] = 0 if sign > 0 else source.stored_shape[stored] - 1
    affine = source.stored_affine @ to_stored
    turned = voxels.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    # NIfTI keeps a spacing in float32, other formats in decimal digits; copies of one scan must land on the same grid.
    spacing = tuple(float(np.float32(value)) for value in np.linalg.norm(affine[:3, :3], axis=0))
    return CTVolume(voxels=turned, spacing=spacing, affine=affine, source=source)
