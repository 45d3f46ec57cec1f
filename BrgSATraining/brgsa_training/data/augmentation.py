"""Random changes of a training volume, by MONAI: where it is cropped, and optionally how it lies and how it is noised.

Left and right are never swapped, because reports name sides.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Optional changes; the released recipe has none.

    Attributes:
        probability: share of volumes that are changed, for the placement and for the values each; 0 switches it off.
        rotation_degrees: largest rotation about each axis.
        zoom: largest change of size, as a share.
        shift_voxels: largest shift along each axis.
        noise_hu: largest standard deviation of added noise.
        shift_hu: largest shift of all values.
    """

    probability: float = 0.0
    rotation_degrees: float = 5.0
    zoom: float = 0.05
    shift_voxels: float = 2.0
    noise_hu: float = 20.0
    shift_hu: float = 10.0

    def apply(self, hu: np.ndarray, seed: int) -> np.ndarray:
        """Change HU (X, Y, Z), float32; the same seed changes the same way."""
        import torch
        from monai.transforms import Compose, RandAffine, RandGaussianNoise, RandShiftIntensity

        changes = Compose(
            [
                RandAffine(
                    prob=self.probability,
                    rotate_range=[np.deg2rad(self.rotation_degrees)] * 3,
                    scale_range=[self.zoom] * 3,
                    translate_range=[self.shift_voxels] * 3,
                    padding_mode="border",
                ),
                RandGaussianNoise(prob=self.probability, std=self.noise_hu),
                RandShiftIntensity(prob=self.probability, offsets=self.shift_hu),
            ]
        ).set_random_state(seed)
        changed = changes(torch.from_numpy(np.array(hu, np.float32)[None]))
        return np.asarray(changed)[0]


def random_crop(volume: np.ndarray, size: tuple[int, int, int], seed: int) -> np.ndarray:
    """Cut a box of `size` voxels at random, as a view; the place is that of MONAI's RandSpatialCrop with this seed.

    Cropping the view of a memory-mapped file reads no more than the box.
    """
    if volume.shape == tuple(size):
        return volume
    from monai.data.utils import get_random_patch

    return volume[get_random_patch(volume.shape, size, np.random.RandomState(seed))]
