"""Writing a heat map as an image that lies on the scan as its file stores it."""

import os
from pathlib import Path

import numpy as np

from brgsa.ct.cases import safe_name
from brgsa.ct.volume import CTVolume
from brgsa.errors import FORCED
from brgsa.files import atomic_path

_LEVELS = 255
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DESCRIPTION = "BrgSA model attention, not a segmentation"


def save_heatmap(path: str | os.PathLike, values: np.ndarray, scan: CTVolume, forced: bool = False) -> None:
    """Write a map on the voxels of `scan`, (X, Y, Z) in 0..1, in the axis order and with the geometry of its file.

    The suffix chooses the format: NIfTI (.nii, .nii.gz) holds bytes with the slope 1/255, because maps are smooth and
    large; every other format that SimpleITK writes holds float32.

    Args:
        forced: the scan fails the input checks, which the description in a NIfTI file says.

    Raises:
        BrgSAError: the file cannot be written.
    """
    stored, affine = scan.to_stored(values), scan.source.stored_affine
    with atomic_path(path) as temporary:
        if ".nii" in Path(path).suffixes[-2:]:
            _write_nifti(temporary, stored, _LPS_TO_RAS @ affine, f"; {FORCED}" if forced else "")
        else:
            _write_itk(temporary, stored, affine)


def heatmap_file_names(names: list[str]) -> dict[str, str]:
    """A file name for each abnormality, `heatmap-NAME.nii.gz`; a number where two names look alike as file names."""
    files: dict[str, str] = {}
    for name in names:
        stem, taken = f"heatmap-{safe_name(name)}", {file.casefold() for file in files.values()}
        number, file = 1, f"{stem}.nii.gz"
        while file.casefold() in taken:
            number += 1
            file = f"{stem}-{number}.nii.gz"
        files[name] = file
    return files


def _write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, mark: str) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.rint(values * _LEVELS).astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = _DESCRIPTION + mark
    image.header.set_slope_inter(1 / _LEVELS, 0)  # the bytes are written as they are, this says what they mean
    image.to_filename(path)


def _write_itk(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    import SimpleITK

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T, dtype=np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path))
