"""What every reader returns: voxels in the order in which the file stores them, and where they came from."""

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brgsa.ct.names import EXTENSIONS
from brgsa.errors import InputError

_HEADER_LIMIT = 1 << 18  # bytes
# Deflate cannot pack better than 1032 to 1, so a header that claims more than that is wrong.
HIGHEST_COMPRESSION = 1100
# Four times 512 x 512 x 1000: a volume that is larger than this is none of a CT.
MOST_VOXELS = 1_000_000_000


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
    """Open a regular file for reading as bytes.

    Raises:
        InputError: there is none, it cannot be opened, or it is a pipe or a device, which might never answer.
    """
    _regular_file(path)
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
        InputError: there is no such file, it is not a regular one, or it is empty.
    """
    size = _regular_file(path).st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty; copy or export it again.")
    return size


def _regular_file(path: Path) -> os.stat_result:
    try:
        status = os.stat(path)  # noqa: PTH116 (Path.stat is slower and gives the same)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: there is no such file; check the name.") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe or a device"
        raise InputError(f"{path}: is a {kind}, not a file; give a CT scan.")
    return status


def header_text(path: Path) -> str:
    """The beginning of a file whose header is text, one character a byte.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    file_size(path)
    with open_file(path) as file:
        return file.read(_HEADER_LIMIT).decode("latin-1")


def numbers(text: str) -> list[float] | None:
    """The numbers of a text header's value, None where something else stands there."""
    try:
        return [float(word) for word in text.split()] if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def spacing_error(path: Path, text: str) -> InputError:
    """The error for a spacing that no volume can have."""
    return InputError(f"{path}: the header gives the spacing {text[:100]!r}; correct it and save the scan again.")


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


def put_hu(stored: np.ndarray, hu: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bool:
    """Rescale stored values once, into an array of the same shape; False where int16 is too small for them.

    `hu` is int16, for whole numbers with a slope of 1 and a whole intercept, or float32. It may be `stored` itself.
    """
    if hu.dtype == np.int16:
        if not fits_int16(stored, int(intercept)):
            return False
        # Integer arithmetic wraps, and since the sum fits, it wraps back to the right value.
        _copy(stored, hu)
        if intercept:
            hu += np.array(int(intercept) & 0xFFFF, np.uint16).astype(np.int16)
        return True
    with np.errstate(all="ignore"):
        _copy(stored, hu)
        if slope != 1:
            hu *= np.float32(slope)
        if intercept:
            hu += np.float32(intercept)
    return True


def fits_int16(stored: np.ndarray, intercept: int = 0) -> bool:
    """Whether whole numbers and what is added to them lie in the range of int16."""
    if stored.dtype == np.int16 and not intercept:
        return True
    return int(stored.min()) + intercept >= -32768 and int(stored.max()) + intercept <= 32767


def _copy(stored: np.ndarray, hu: np.ndarray) -> None:
    if stored is not hu:
        np.copyto(hu, stored, casting="unsafe")


def require_finite(path: Path, voxels: np.ndarray) -> None:
    """Refuse NaN and infinite voxels.

    Raises:
        InputError: naming how many there are.
    """
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels.min()) and np.isfinite(voxels.max())):
        bad = voxels.size - sum(int(np.count_nonzero(np.isfinite(part))) for part in voxels)
        raise InputError(
            f"{path}: {bad:,} of {voxels.size:,} voxels are not finite numbers (NaN or infinite); "
            "replace them with -1024 (air) or export the scan again."
        )


def require_three_axes(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Return the shape without trailing axes of length 1, and a message where there were some.

    Raises:
        InputError: fewer than three axes, more than three, an axis shorter than two voxels, or more than `MOST_VOXELS`.
    """
    text = "x".join(map(str, shape))
    kept = shape
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) > 3:
        raise InputError(f"{path}: has {len(kept)} axes ({text}): time or channels; extract one 3-D volume.")
    if len(kept) < 3 or min(kept) < 2:
        raise InputError(f"{path}: is not a volume (its size is {text}); give a 3-D scan, at least 2 voxels per axis.")
    if math.prod(kept) > MOST_VOXELS:
        raise InputError(f"{path}: has {math.prod(kept):,} voxels ({text}), over {MOST_VOXELS:,}; crop or resample it.")
    message = (f"the {len(shape)}-D image ({text}) holds a single volume, which was used",)
    return kept, (message if len(shape) > 3 else ())
