"""Smooth random fields that look the same at every resolution."""

from functools import lru_cache

import numpy as np

from brgsa_training.phantom.grid import FIELD_MM, Grid

# Mean over a period of the sum of squared cubic B-spline weights, per axis: brings a field to unit variance.
_VARIANCE_PER_AXIS = 151 / 315


@lru_cache(maxsize=32)
def _spline_weights(grid: Grid, axis: int, step_mm: float) -> np.ndarray:
    """(voxels, knots) cubic B-spline weights of knots every `step_mm` along one axis."""
    knots = int(FIELD_MM[axis] / step_mm) + 4
    position = (grid.axes[axis] + FIELD_MM[axis] / 2) / step_mm + 1
    distance = np.abs(position[:, None] - np.arange(knots, dtype=np.float32))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)


def smooth_field(
    grid: Grid, region: tuple[slice, slice, slice], rng: np.random.Generator, step_mm: float
) -> np.ndarray:
    """Draw a Gaussian field of mean 0 and variance 1 whose blobs are about `step_mm` in radius.

    The random numbers sit on knots `step_mm` apart, so the draw does not depend on the grid, only its sampling does.
    """
    wx, wy, wz = (_spline_weights(grid, axis, step_mm)[part] for axis, part in enumerate(region))
    knots = rng.standard_normal((wx.shape[1], wy.shape[1], wz.shape[1]), dtype=np.float32)
    field = np.tensordot(wx, knots, axes=(1, 0))  # (X, ky, kz)
    field = wy @ field  # (X, Y, kz)
    field = field @ wz.T  # (X, Y, Z)
    field /= _VARIANCE_PER_AXIS**1.5
    return field
