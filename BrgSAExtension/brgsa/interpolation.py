"""Linear and nearest-neighbour interpolation of a volume on a regular grid, one axis after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Three interpolations in float32 stay below 1e-3 while the values lie within this (12-bit CT does); beyond it, float64.
_FLOAT32_LIMIT = 3072
# Keeps a sample that lies exactly on the border outside, whatever the rounding of the spacing.
_BORDER = 1e-6


class Samples(NamedTuple):
    """Along one axis: output `target` is `source[lower] + weight * (source[upper] - source[lower])`."""

    target: slice
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    @classmethod
    def at(cls, positions: np.ndarray, count: int, nearest: bool = False) -> "Samples":
        """Return samples at ascending `positions` (in voxels) among `count` voxels.

        Positions up to half a voxel beyond the first or last centre take that voxel's value; others are left out.
        """
        inside = np.flatnonzero((positions >= -0.5) & (positions < count - 0.5 - _BORDER))
        target = slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0)
        positions = positions[target]
        if nearest:
            positions = np.floor(positions + 0.5)
        positions = np.clip(positions, 0, count - 1)
        lower = np.floor(positions).astype(np.intp)
        return cls(target, lower, np.minimum(lower + 1, count - 1), positions - lower)

    def touched(self) -> slice:
        return slice(self.lower[0], self.upper[-1] + 1) if self.lower.size else slice(0, 0)

    def shifted(self, start: int) -> "Samples":
        return self._replace(lower=self.lower - start, upper=self.upper - start)


def interpolate(source: np.ndarray, samples: Sequence[Samples], out: np.ndarray) -> None:
    """Interpolate `source` (X, Y, Z) linearly at `samples` of the three axes into `out` (X, Y, Z), slice by slice.

    The result is within 1e-3 of the true value for what is below about 3000 in size, and within a float32 rounding
    otherwise. The order is always Z, Y, X, so that scans stored in different axis orders give the very same numbers.
    """
    touched = tuple(axis.touched() for axis in samples)
    along_x, along_y, along_z = (axis.shifted(part.start) for axis, part in zip(samples, touched, strict=True))
    source = source[touched]
    if abs(source.strides[2]) < max(abs(source.strides[0]), abs(source.strides[1])):
        source = np.asfortranarray(source)  # slices scattered over the memory are slower to gather than to copy once
    slices = source.T  # (Z, Y, X)
    targets = out[along_x.target, along_y.target, along_z.target].T
    if not targets.size:
        return
    for target, lower, upper, weight in zip(targets, along_z.lower, along_z.upper, along_z.weight, strict=True):
        used = [slices[lower]] if weight == 0 else [slices[lower], slices[upper]]
        small = all(part.min() >= -_FLOAT32_LIMIT and part.max() <= _FLOAT32_LIMIT for part in used)
        plane = used[0].astype(np.float32 if small else np.float64)
        if weight:
            _lerp(plane, used[1].astype(plane.dtype), plane.dtype.type(weight))
        plane = _sample(plane, along_y, axis=0)
        target[...] = _sample(plane, along_x, axis=1)


def _sample(plane: np.ndarray, samples: Samples, axis: int) -> np.ndarray:
    sampled = plane.take(samples.lower, axis=axis)
    if samples.weight.any():
        weight = samples.weight.astype(plane.dtype)
        _lerp(sampled, plane.take(samples.upper, axis=axis), weight[:, np.newaxis] if axis == 0 else weight)
    return sampled


def _lerp(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray | np.floating) -> None:
    """Move `lower` in place towards `upper` by `weight`; `upper` is used up."""
    upper -= lower
    upper *= weight
    lower += upper
