"""What every reader returns: voxels in the order in which the file stores them, and where they came from."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brgsa.errors import InputError

EXTENSIONS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
# Deflate cannot pack better than 1032 to 1, so a header that claims more than that is wrong.
HIGHEST_COMPRESSION = 1100


@dataclass(frozen=True)
class Source:
    """Where a volume came from and how its file stores it. Holds no patient identifiers.

    `stored_shape` and `stored_affine` (4x4 float64, index to LPS world mm) describe the axes as the file orders them.
    `slope` and `intercept` are the rescaling that was applied to get HU, once. `slice_positions` are the DICOM slices'
    positions along their normal (mm, ascending, repeats removed), None for other formats. `slice_thickness` is in mm.
    `orientation_known` is False where the file does not say how its axes lie in the patient.
    """

    path: Path
    format: str
    stored_shape: tuple[int, int, int]
    stored_affine: np.ndarray
    stored_dtype: str
    slope: float = 1.0
    intercept: float = 0.0
    orientation_known: bool = True
    modality: str | None = None
    series_uid: str | None = None
    slice_positions: tuple[float, ...] | None = None
    slice_thickness: float | None = None
    duplicate_slices: int = 0
    messages: tuple[str, ...] = ()

    @property
    def stored_axes(self) -> str:
        """Three letters, such as "PSR": the patient direction in which each stored axis grows."""
        order, signs = nearest_axes(self.stored_affine)
        letters = [""] * 3
        for direction, (axis, sign) in enumerate(zip(order, signs, strict=True)):
            letters[axis] = "LPS"[direction] if sign > 0 else "RAI"[direction]
        return "".join(letters)


def nearest_axes(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """For each of the directions Left, Posterior, Superior, give the index axis nearest to it and its sign (+1, -1)."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    order = max(orders, key=lambda axes: round(sum(abs(cosines[row, axis]) for row, axis in enumerate(axes)), 9))
    signs = tuple(1 if cosines[row, axis] >= 0 else -1 for row, axis in enumerate(order))
    return order, signs


def file_format(path: Path) -> str | None:
    """Return "nifti", "nrrd", "metaimage" or "dicom" by the file's name, or by DICOM's mark, else None.

    Raises:
        InputError: the file cannot be opened.
    """
    name = path.name.lower()
    for extension, kind in EXTENSIONS.items():
        if name.endswith(extension):
            return kind
    with open_file(path) as file:
        return "dicom" if file.read(132)[128:] == b"DICM" else None


def open_file(path: Path):
    """Open for reading as bytes, with a one-line InputError where that fails."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the one-line error for a file that the system does not let us read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}); check the name and its permissions.")


def file_size(path: Path) -> int:
    """Return the size in bytes.

    Raises:
        InputError: there is no such file, or it is empty.
    """
    try:
        size = os.stat(path).st_size  # noqa: PTH116 (Path.stat is slower and gives the same)
    except OSError as error:
        raise unreadable(path, error) from error
    if size == 0:
        raise InputError(f"{path}: the file is empty; copy or export it again.")
    return size


def require_plausible_size(path: Path, claimed: int, available: int, compressed: bool) -> None:
    """Refuse a header that promises more voxels than the file can hold, before memory is set aside for them.

    Raises:
        InputError: `claimed` bytes of voxels cannot come from `available` bytes in the file.
    """
    if claimed > available * (HIGHEST_COMPRESSION if compressed else 1):
        raise InputError(
            f"{path}: the header promises {claimed:,} bytes of voxels, but the file holds {available:,}; "
            "it is cut short or its header is damaged: copy or export it again."
        )


def to_hu(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Apply the rescaling once: int16 where all values are whole and fit, else float32. May reuse `stored`."""
    if stored.dtype.kind in "iu" and slope == 1 and float(intercept).is_integer():
        low, high = int(stored.min()) + int(intercept), int(stored.max()) + int(intercept)
        if low >= -32768 and high <= 32767:
            # Integer arithmetic wraps, and since the sum fits, it wraps back to the right value.
            hu = stored.astype(np.int16, copy=False)
            if intercept:
                hu += np.array(int(intercept)).astype(np.int16)
            return hu
    with np.errstate(all="ignore"):
        hu = stored.astype(np.float32, copy=False)
        if slope != 1:
            hu *= np.float32(slope)
        if intercept:
            hu += np.float32(intercept)
    return hu


def require_finite(path: Path, voxels: np.ndarray) -> None:
    """Refuse NaN and infinite voxels.

    Raises:
        InputError: naming how many there are.
    """
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels.min()) and np.isfinite(voxels.max())):
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        raise InputError(
            f"{path}: {bad:,} of {voxels.size:,} voxels are not finite numbers (NaN or infinite); "
            "replace them with -1024 (air) or export the scan again."
        )


def require_three_axes(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the shape without trailing axes of length 1, and a message where there were some.

    Raises:
        InputError: fewer than three axes, more than three, or an axis shorter than two voxels.
    """
    text = "x".join(map(str, shape))
    kept = shape
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) > 3:
        raise InputError(f"{path}: has {len(kept)} axes ({text}): time or channels; extract one 3-D volume.")
    if len(kept) < 3 or min(kept) < 2:
        raise InputError(f"{path}: is not a volume (its size is {text}); give a 3-D scan, at least 2 voxels per axis.")
    message = (f"the {len(shape)}-D image ({text}) holds a single volume, which was used",)
    return kept, (message if len(shape) > 3 else ())
