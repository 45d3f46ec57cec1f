"""The grid on which a phantom is evaluated: how many voxels share the model's field of view."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from brgsa.errors import UsageError

# The field of the model's own grid: 256 x 1.5, 256 x 1.5 and 128 x 3.0 mm along Left, Posterior and Superior.
FIELD_MM = (384.0, 384.0, 384.0)
NAMED_GRIDS = {"coarse": (64, 64, 64), "full": (256, 256, 128)}
SMALLEST, LARGEST = 16, 512


@dataclass(frozen=True)
class Grid:
    """Voxels along Left, Posterior and Superior; together they always cover `FIELD_MM`, centred on the origin."""

    shape: tuple[int, int, int]

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along each axis."""
        return tuple(field / count for field, count in zip(FIELD_MM, self.shape, strict=True))

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4) matrix from voxel index to LPS mm (NIfTI files store RAS: the first two rows change sign)."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = [axis[0] for axis in self.axes]
        return affine

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centres of the voxels in LPS mm along each axis."""
        return tuple(
            (np.arange(count, dtype=np.float32) + 0.5) * step - field / 2
            for count, step, field in zip(self.shape, self.spacing, FIELD_MM, strict=True)
        )


def parse_grid(text: str) -> Grid:
    """Read "coarse", "full" or "X,Y,Z".

    Raises:
        UsageError: neither a known name nor three whole numbers from 16 to 512.
    """
    if text in NAMED_GRIDS:
        return Grid(NAMED_GRIDS[text])
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or not all(SMALLEST <= count <= LARGEST for count in shape):
        raise UsageError(
            f"--grid {text!r} is not a grid: write coarse, full or three voxel counts from {SMALLEST} to {LARGEST} "
            "such as 96,96,64."
        )
    return Grid(shape)
