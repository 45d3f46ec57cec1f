"""Volumes that are in memory, for small models and tests."""

from collections.abc import Sequence

import numpy as np

from brgsa.preprocess import PreprocessingPlan


class ArrayVolumes:
    """Volumes of one array, with the interface of `VolumeCache`.

    Args:
        voxels: (N, X, Y, Z) of the plan's shape; HU = voxels * slope + intercept.
        plan: the grid of the volumes.
        names: N case names; "0", "1", ... by default. Each case is a patient of its own.
    """

    def __init__(
        self,
        voxels: np.ndarray,
        plan: PreprocessingPlan,
        names: Sequence[str] | None = None,
        slope: float = 1.0,
        intercept: float = 0.0,
    ):
        names = [str(number) for number in range(len(voxels))] if names is None else list(names)
        if voxels.shape[1:] != plan.shape or len(names) != len(voxels):
            raise ValueError(f"{voxels.shape} voxels with {len(names)} names do not fit a plan of {plan.shape}")
        self.plan, self.slope, self.intercept = plan, slope, intercept
        self.shape = plan.shape
        self._voxels = voxels
        self.cases = {name: number for number, name in enumerate(names)}

    def volume(self, case: str) -> np.ndarray:
        """The voxels of a case as they are stored, (X, Y, Z)."""
        return self._voxels[self.cases[case]]
