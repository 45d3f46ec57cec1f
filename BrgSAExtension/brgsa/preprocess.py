"""From a CT in Hounsfield units to the model's grid and input, and from a map on that grid back to the CT.

The resampled scan has its first voxel centre where the scan has its own. Its number of voxels is the scan's extent
divided by the spacing of the model, rounded half to even. What is larger than the model's shape is cropped at the
centre, what is smaller is padded. There is no anti-aliasing: the model was trained without it.

Two fidelities use this same geometry:

* `reference` repeats the released preprocessing bit for bit: the pixel type is kept, so whole numbers stay whole, and
  samples more than half a voxel beyond the last voxel's centre become 0 HU.
* `exact` interpolates in floating point, within 1e-3 HU of the true value, and has air (the padding value) where
  `reference` has those 0 HU.

Arrays are (X, Y, Z) with index axes that grow Left, Posterior, Superior. Formulas: docs/method.md c.1 and c.3.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from brgsa.errors import InputError, SetupError, UsageError, first_line
from brgsa.files import read_json, write_json
from brgsa.interpolation import Samples, interpolate

if TYPE_CHECKING:
    from brgsa.ct.volume import CTVolume

FIDELITIES = ("exact", "reference")
PLAN_VERSION = 1

# The pixel types a CTVolume may have; the released pipeline wraps the padding value in unsigned ones.
_PIXEL_TYPES = ("int16", "int32", "float32", "float64")
_LONGEST_MM = 5000.0
_LARGEST = 1e9  # of any number of a plan
_MOST_VOXELS = 2**30  # of the model's grid: 32 times the released one


@dataclass(frozen=True)
class PreprocessingPlan:
    """How a scan becomes the input of one model; it travels with the weights as `preprocessor_config.json`.

    Args:
        spacing: voxel size of the model's grid in mm (X, Y, Z).
        shape: voxels of the model's grid (X, Y, Z).
        clip_hu: lowest and highest HU that the model sees; they become -1 and 1 before normalisation.
        padding_hu: value of what lies outside the scan, clipped like the rest.
        mean, std: applied to the values in [-1, 1]. The defaults are those of the released model; they are statistics
            of chest X-rays in [0, 1], and the model was trained with them.
        version: of this format.

    Raises:
        SetupError: a value makes no sense.
    """

    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0)
    shape: tuple[int, int, int] = (256, 256, 128)
    clip_hu: tuple[float, float] = (-1000.0, 1000.0)
    padding_hu: float = -1024.0
    mean: float = 0.4978
    std: float = 0.2449
    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        if self.version != PLAN_VERSION:
            raise SetupError(
                f"preprocessing plan: version is {self.version!r}, this program reads version {PLAN_VERSION}. "
                "Update brgsa or use other weights."
            )
        for name, length in (("spacing", 3), ("shape", 3), ("clip_hu", 2)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != length:
                raise _plan_error(name, values, f"{length} numbers")
            object.__setattr__(self, name, tuple(_number(name, value) for value in values))
        for name in ("padding_hu", "mean", "std"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if min(self.spacing) <= 0:
            raise _plan_error("spacing", self.spacing, "sizes above 0 mm")
        if min(self.shape) < 1 or any(value != int(value) for value in self.shape):
            raise _plan_error("shape", self.shape, "whole numbers above 0")
        object.__setattr__(self, "shape", tuple(int(value) for value in self.shape))
        if math.prod(self.shape) > _MOST_VOXELS:
            raise _plan_error("shape", self.shape, f"at most {_MOST_VOXELS:,} voxels")
        if self.clip_hu[0] >= self.clip_hu[1]:
            raise _plan_error("clip_hu", self.clip_hu, "a lower and a higher value")
        if self.std <= 0:
            raise _plan_error("std", self.std, "a number above 0")

    @property
    def air_hu(self) -> float:
        """HU of what lies outside the scan, as the model sees it."""
        return min(max(self.padding_hu, self.clip_hu[0]), self.clip_hu[1])

    @property
    def window_mm(self) -> tuple[float, float, float]:
        """Lengths (mm along X, Y, Z) of the box around the scan's centre that the model sees."""
        x, y, z = (count * size for count, size in zip(self.shape, self.spacing, strict=True))
        return x, y, z

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Any) -> "PreprocessingPlan":
        """Return the plan that `to_dict` wrote.

        Raises:
            SetupError: another version, an unknown or a missing key, or a value that makes no sense.
        """
        if not isinstance(values, dict):
            raise SetupError("preprocessing plan: not a JSON object. Download or import the weights again.")
        if "version" in values and values["version"] != PLAN_VERSION:
            return cls(version=values["version"])  # says which versions, before complaining about that version's keys
        names = [field.name for field in dataclasses.fields(cls)]
        for problem, keys in (
            ("unknown key", [str(key) for key in values if key not in names]),
            ("missing key", [name for name in names if name not in values]),
        ):
            if keys:
                raise SetupError(
                    f"preprocessing plan: {problem} {', '.join(map(repr, keys))}. "
                    "Update brgsa, or download or import the weights again."
                )
        return cls(**values)

    def save(self, path: str | os.PathLike) -> None:
        """Write the plan as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "PreprocessingPlan":
        """Read a plan from JSON.

        Raises:
            SetupError: the file is missing, is not JSON, or is not a plan that this program knows.
        """
        try:
            return cls.from_dict(read_json(path))
        except OSError as error:
            raise SetupError(f"{path}: cannot be read: {error.strerror or error}. Check the weights folder.") from error
        except ValueError as error:
            raise SetupError(
                f"{path}: not valid JSON ({first_line(error)}). Download or import the weights again."
            ) from error
        except SetupError as error:
            raise SetupError(f"{path}: {error}") from error


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise _plan_error(name, value, "a finite number")
    return float(value)


def _plan_error(name: str, value: Any, wanted: str) -> SetupError:
    return SetupError(
        f"preprocessing plan: {name} is {repr(value)[:60]}, expected {wanted}. Download or import the weights again."
    )


@dataclass(frozen=True)
class ModelGrid:
    """Where a model's grid lies in one scan. All tuples are (X, Y, Z), lengths in mm.

    Voxel m of the grid has its centre at voxel `(m - pad_lower + crop_lower) * spacing / volume_spacing` of the scan.
    """

    volume_shape: tuple[int, int, int]
    volume_spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, volume: "CTVolume", plan: PreprocessingPlan) -> "ModelGrid":
        """Return the grid of `plan` in `volume`.

        Raises:
            InputError: the voxels are not a 3-D array of HU, or the spacing cannot be true.
        """
        voxels = volume.voxels
        if voxels.ndim != 3 or min(voxels.shape) < 2:
            raise InputError(
                f"the scan has {_by(voxels.shape)} voxels; at least 2 along each of three axes are needed. "
                "Choose a full 3-D series."
            )
        if voxels.dtype.name not in _PIXEL_TYPES:
            raise InputError(f"the scan has {voxels.dtype} values; convert them to HU as int16 or float32.")
        spacing = tuple(float(size) for size in volume.spacing)
        if len(spacing) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing):
            raise InputError(
                f"the scan's voxel size is {_by(spacing)} mm, not three sizes above 0. Correct its header."
            )
        grid = cls(tuple(voxels.shape), spacing, plan.shape, plan.spacing)
        extent = tuple(count * size for count, size in zip(grid.volume_shape, spacing, strict=True))
        if max(extent) > _LONGEST_MM or min(grid.resampled_shape) < 1:
            raise InputError(
                f"the scan measures {_by(extent)} mm by its header (voxels of {_by(spacing)} mm), which is not "
                "a chest. Correct the voxel size in its header."
            )
        return grid

    @property
    def resampled_shape(self) -> tuple[int, int, int]:
        """Voxels of the whole scan at the model's spacing, before cropping and padding (half is rounded to even)."""
        return tuple(
            round(count * size / new)
            for count, size, new in zip(self.volume_shape, self.volume_spacing, self.spacing, strict=True)
        )

    @property
    def kept_shape(self) -> tuple[int, int, int]:
        """Voxels that remain of `resampled_shape` after cropping."""
        return tuple(map(min, self.resampled_shape, self.shape))

    @property
    def crop_lower(self) -> tuple[int, int, int]:
        """Resampled voxels cut off before the first kept one: the larger half of what is too much."""
        return tuple((size - kept + 1) // 2 for size, kept in zip(self.resampled_shape, self.kept_shape, strict=True))

    @property
    def pad_lower(self) -> tuple[int, int, int]:
        """Voxels of padding before the first kept one: the smaller half of what is missing."""
        return tuple((size - kept) // 2 for size, kept in zip(self.shape, self.kept_shape, strict=True))


def to_grid(volume: "CTVolume", plan: PreprocessingPlan, fidelity: str = "exact") -> tuple[np.ndarray, ModelGrid]:
    """Resample a scan to the model's grid.

    Args:
        volume: HU voxels (X, Y, Z) of any memory layout, spacing in mm, affine.
        plan: the grid and the HU range.
        fidelity: "exact" or "reference", see the head of this file.

    Returns:
        HU clipped to `plan.clip_hu`, float32 (X, Y, Z) of `plan.shape`, stored slice by slice (Z is the slowest axis);
        and the grid, to go back with `grid_to_ct`.

    Raises:
        InputError: see `ModelGrid.of`; or a voxel inside the model's field is not a number.
        UsageError: unknown fidelity.
    """
    if fidelity not in FIDELITIES:
        raise UsageError(f"unknown fidelity {fidelity!r}. Choose {' or '.join(FIDELITIES)}.")
    grid = ModelGrid.of(volume, plan)
    hu = _resample_released(volume, plan, grid) if fidelity == "reference" else _resample_exact(volume, plan, grid)
    np.clip(hu, *plan.clip_hu, out=hu)
    if np.isnan(hu.min()):
        raise InputError("the scan has voxels that are not numbers (NaN or infinity). Export the scan again.")
    return hu, grid


def to_input(hu: np.ndarray, plan: PreprocessingPlan) -> np.ndarray:
    """Scale HU as the image encoder takes them: `clip_hu` to [-1, 1], then `(x - mean) / std`.

    Args:
        hu: HU on the model's grid, or a crop of it, (X, Y, Z).

    Returns:
        float32 (1, X, Y, Z) in the memory order of `hu`. The order of operations repeats the released transform bit for
        bit (docs/method.md c.3).
    """
    low, high = (np.float32(value) for value in plan.clip_hu)
    scaled = hu.astype(np.float32)
    slowest = int(np.argmax(np.abs(scaled.strides)))
    for part in np.moveaxis(scaled, slowest, 0):  # part by part, because one fits in the processor's cache
        np.clip(part, low, high, out=part)
        part -= low
        part /= high - low
        part *= np.float32(2)
        part -= np.float32(1)
        part -= np.float32(plan.mean)
        part /= np.float32(plan.std)
    return scaled[np.newaxis]


def grid_to_ct(values: np.ndarray, grid: ModelGrid, order: str = "linear", fill: float = 0.0) -> np.ndarray:
    """Carry a map on the model's grid back to the scan's own voxels.

    Args:
        values: real numbers (X, Y, Z) of `grid.shape`.
        order: "linear", or "nearest" for labels.
        fill: for voxels of the scan that the model did not see.

    Returns:
        float32 (X, Y, Z) of `grid.volume_shape`. What `values` holds on the padding around the scan plays no part.

    Raises:
        InputError: the map has another shape or type.
        UsageError: unknown order.
    """
    if order not in ("linear", "nearest"):
        raise UsageError(f"unknown order {order!r}. Choose linear or nearest.")
    if values.shape != grid.shape or values.dtype.kind not in "biuf":
        raise InputError(
            f"the map has {_by(values.shape)} {values.dtype} values; "
            f"the model's grid needs {_by(grid.shape)} real numbers. Use the map made for this model."
        )
    seen = tuple(slice(low, low + kept) for low, kept in zip(grid.pad_lower, grid.kept_shape, strict=True))
    samples = []
    for axis, count in enumerate(grid.volume_shape):
        positions = np.arange(count) * grid.volume_spacing[axis] / grid.spacing[axis] - grid.crop_lower[axis]
        samples.append(Samples.at(positions, grid.kept_shape[axis], nearest=order == "nearest"))
    out = np.full(grid.volume_shape, fill, np.float32, order="F")
    interpolate(values[seen].astype(np.float32), samples, out)
    return out


def rescale_reference(voxels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Apply a rescale slope and intercept as the released preprocessing does: in the pixel type of the image.

    For integers the slope is cut to a whole number (0.5 becomes 0) and results wrap around; for floating point this is
    the usual formula. Formula: docs/method.md c.1 step 1.
    """
    pixel_type = voxels.dtype.type
    if voxels.dtype.kind in "iu":
        slope, intercept = (np.int64(value).astype(voxels.dtype) for value in (slope, intercept))
    return voxels * pixel_type(slope) + pixel_type(intercept)


def _resample_released(volume: "CTVolume", plan: PreprocessingPlan, grid: ModelGrid) -> np.ndarray:
    """Return HU on the model's grid, not yet clipped, float32 (X, Y, Z), as the released pipeline computes them."""
    import SimpleITK

    affine = np.asarray(volume.affine, dtype=np.float64)
    direction = affine[:3, :3] / np.asarray(grid.volume_spacing)
    if not np.isfinite(affine).all() or abs(np.linalg.det(direction)) < 1e-6:
        raise InputError("the scan's axes do not span space, or its position is not a number. Correct its header.")
    voxels = volume.voxels
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T, dtype=voxels.dtype.newbyteorder("=")))
    image.SetSpacing(grid.volume_spacing)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(direction.ravel().tolist())

    resample = SimpleITK.ResampleImageFilter()
    resample.SetOutputSpacing(grid.spacing)
    resample.SetSize(grid.resampled_shape)
    resample.SetOutputOrigin(image.GetOrigin())
    resample.SetOutputDirection(image.GetDirection())
    resample.SetInterpolator(SimpleITK.sitkLinear)
    resample.SetDefaultPixelValue(0)
    result = resample.Execute(image)  # has to outlive the view of its memory
    resampled = SimpleITK.GetArrayViewFromImage(result).T

    hu = np.full(grid.shape, plan.padding_hu, np.float32, order="F")
    inside, kept = [], []
    for lower, crop, count in zip(grid.pad_lower, grid.crop_lower, grid.kept_shape, strict=True):
        inside.append(slice(lower, lower + count))
        kept.append(slice(crop, crop + count))
    hu[tuple(inside)] = resampled[tuple(kept)]
    return hu


def _resample_exact(volume: "CTVolume", plan: PreprocessingPlan, grid: ModelGrid) -> np.ndarray:
    """Return HU on the model's grid, not yet clipped, float32 (X, Y, Z), without computing what the crop removes."""
    samples = []
    for axis, size in enumerate(grid.shape):
        index = np.arange(size) - grid.pad_lower[axis]
        positions = (index + grid.crop_lower[axis]) * grid.spacing[axis] / grid.volume_spacing[axis]
        positions[(index < 0) | (index >= grid.kept_shape[axis])] = -np.inf
        samples.append(Samples.at(positions, grid.volume_shape[axis]))
    hu = np.full(grid.shape, plan.air_hu, np.float32, order="F")
    interpolate(volume.voxels, samples, hu)
    return hu


def _by(sizes: tuple) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
