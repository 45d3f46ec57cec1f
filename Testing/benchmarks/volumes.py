"""A synthetic chest CT for the benchmarks: the size, texture and compression of a real one, the same on every run."""

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (512, 512, 300)
SPACING = (0.75, 0.75, 1.0)


def chest(shape=SHAPE, spacing=SPACING, seed=0):
    """Return HU as int16 (X, Y, Z), X fastest in memory, index axes growing Left, Posterior, Superior.

    Body, fat, lungs with vessels, ribs and spine, scanner noise, and the constant padding around a round field of view.
    """
    rng = np.random.default_rng(seed)
    nx, ny, nz = shape
    x = ((np.arange(nx) - nx / 2) * spacing[0]).astype(np.float32)  # mm from the centre
    y = ((np.arange(ny) - ny / 2) * spacing[1]).astype(np.float32)[:, np.newaxis]
    field = x**2 + y**2 < (min(nx * spacing[0], ny * spacing[1]) / 2) ** 2
    vessels = [
        (side * rng.uniform(40, 110), rng.uniform(-60, 60), rng.uniform(0, 6.3)) for side in (-1, 1) for _ in range(40)
    ]
    # One plane of correlated noise per offset: drawing 80 million numbers would take longer than the benchmark.
    noise = rng.normal(size=(ny + 64, nx + 64)).astype(np.float32)
    noise = 6 * (noise + 0.5 * np.roll(noise, 1, 0) + 0.5 * np.roll(noise, 1, 1))
    voxels = np.empty((nz, ny, nx), np.int16)
    for index in range(nz):
        height = index / max(nz - 1, 1) - 0.5  # -0.5 at the bottom, 0.5 at the top
        hu = np.full((ny, nx), -1000, np.float32)
        size = 1 - 0.5 * max(height - 0.25, 0)
        body = (x / (165 * size)) ** 2 + (y / (115 * size)) ** 2
        hu[body < 1] = -100
        hu[body < 0.85] = 45
        lung = size * np.sqrt(max(1 - (height / 0.48) ** 2, 0))
        for side in (-1, 1):
            inside = ((x - side * 75) / (58 * lung + 1e-3)) ** 2 + (y / (82 * lung + 1e-3)) ** 2 < 1
            hu[inside] = -860
            for vx, vy, phase in vessels:
                px, py = vx + 9 * np.sin(12 * height + phase), vy + 9 * np.cos(9 * height + phase)
                left, top = int(px / spacing[0] + nx / 2), int(py / spacing[1] + ny / 2)
                near = slice(max(top - 3, 0), top + 4), slice(max(left - 3, 0), left + 4)
                hu[near] = np.where(inside[near], 30, hu[near])
        ribs = (body > 0.8) & (body < 0.9) & (np.sin(14 * np.arctan2(y, x) + 60 * height) > 0.6)
        hu[ribs | (x**2 + (y - 80) ** 2 < 22**2)] = 350
        hu[np.abs(y[:, 0] - 140) < 4] = -650  # the table
        row, column = rng.integers(0, 64, 2)
        hu += noise[row : row + ny, column : column + nx]
        np.maximum(hu, -1024, out=hu)
        hu[~field] = -1024
        voxels[index] = hu
    return voxels.transpose(2, 1, 0)


def write_chest(path, shape=SHAPE, spacing=SPACING, seed=0):
    """Write `chest` as NIfTI under `path` and return the path."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])  # NIfTI's world grows Right, Anterior, Superior
    affine[:3, 3] = (190.0, 170.0, -300.0)
    nibabel.save(nibabel.Nifti1Image(chest(shape, spacing, seed), affine), path)
    return Path(path)
