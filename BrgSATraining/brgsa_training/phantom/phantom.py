"""One digital chest CT from one seed: the same patient at every resolution."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brgsa_training.phantom.abnormalities import ABNORMALITIES
from brgsa_training.phantom.abnormalities.lesion import Lesion
from brgsa_training.phantom.anatomy import Anatomy, draw_anatomy
from brgsa_training.phantom.body import Scene, paint_body
from brgsa_training.phantom.canvas import AIR_HU, Canvas
from brgsa_training.phantom.grid import NAMED_GRIDS, Grid
from brgsa_training.phantom.prevalence import draw_severities, labels
from brgsa_training.phantom.reports import Report, write_report

COARSE, FULL = Grid(NAMED_GRIDS["coarse"]), Grid(NAMED_GRIDS["full"])
# The part of the field that a body can reach, in patient mm; breasts make it reach further to the front.
BODY_MIDDLE, BODY_HALF_WIDTH = (0.0, -12.0, 0.0), (182.0, 146.0, 215.0)
MOST_HU, LEAST_HU = 3000, -1024
# Standard deviation in HU of the noise in a voxel of 1.5 x 1.5 x 3 mm; larger voxels average some of it away.
NOISE_HU = 16.0
# Arrays for training keep the window of the model, -1000 to 1000 HU, in 8 bits.
WINDOW_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Phantom:
    """One digital chest CT with what it shows.

    Attributes:
        seed: the number it was made from.
        grid: shape, spacing (mm) and affine (LPS).
        voxels: (X, Y, Z) int16 HU, axes growing Left, Posterior, Superior.
        present: abnormality to severity, 0.35 to 1, in the order of the prevalence table.
        report: what a radiologist wrote about it.
        masks: abnormality to (X, Y, Z) bool, one per present abnormality; None unless asked for.
        organs: lung, heart, aorta, chest and bone as (X, Y, Z) bool; None unless asked for.
    """

    seed: int
    grid: Grid
    voxels: np.ndarray
    present: dict[str, float]
    report: Report
    masks: dict[str, np.ndarray] | None = None
    organs: dict[str, np.ndarray] | None = None


def make_phantom(
    seed: int, grid: Grid = COARSE, *, masks: bool = False, present: Mapping[str, float] | None = None
) -> Phantom:
    """Make the phantom of a seed (0 or more). The same seed gives the same patient on every grid.

    Args:
        masks: also return the masks of abnormalities and organs.
        present: abnormality to severity, instead of what the seed would draw; the patient stays the same otherwise.
    """
    anatomy, severities, lesions = _draw(seed, present)
    scene = _paint(seed, grid, anatomy, lesions, masks)
    voxels = np.full(grid.shape, AIR_HU, np.float32)
    voxels[scene.canvas.region] = scene.canvas.hu
    _paint_table(voxels, grid)
    voxels += _noise(seed, grid, voxels.shape)
    voxels = np.clip(np.rint(voxels, out=voxels), LEAST_HU, MOST_HU).astype(np.int16)
    report = write_report(_rng(seed, "report"), severities, lesions)
    if not masks:
        return Phantom(seed, grid, voxels, severities, report)
    empty = np.zeros(scene.canvas.shape, bool)
    painted = {name: scene.canvas.whole_grid(scene.canvas.masks.get(name, empty), False) for name in severities}
    organs = {name: scene.canvas.whole_grid(mask, False) for name, mask in scene.organs.items()}
    return Phantom(seed, grid, voxels, severities, report, painted, organs)


def make_report(seed: int) -> tuple[dict[str, float], Report]:
    """What `make_phantom(seed)` shows and its report, without painting it (about ten times faster)."""
    _, severities, lesions = _draw(seed, None)
    return severities, write_report(_rng(seed, "report"), severities, lesions)


def make_volumes(seeds: Sequence[int], grid: Grid = COARSE) -> np.ndarray:
    """Make phantoms for training: (N, X, Y, Z) uint8, 0 to 255 for -1000 to 1000 HU (see `to_hu`)."""
    volumes = np.zeros((len(seeds), *grid.shape), np.uint8)
    low, high = WINDOW_HU
    for volume, seed in zip(volumes, seeds, strict=True):
        voxels = make_phantom(int(seed), grid).voxels.astype(np.float32)
        voxels -= low
        voxels *= 255 / (high - low)
        volume[:] = np.clip(np.rint(voxels, out=voxels), 0, 255, out=voxels)
    return volumes


def to_hu(volumes: np.ndarray) -> np.ndarray:
    """HU (float32, to within 4 HU) of what `make_volumes` returns."""
    low, high = WINDOW_HU
    return volumes.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def make_labels(seeds: Sequence[int]) -> np.ndarray:
    """(N, abnormalities) uint8, columns in the order of `prevalence.labels()`."""
    return np.array([[name in severities for name in labels()] for severities in map(_severities, seeds)], np.uint8)


def _rng(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that belong to one purpose: drawing more for one leaves all others as they were."""
    return np.random.default_rng((int(seed), zlib.crc32(purpose.encode())))


def _severities(seed: int) -> dict[str, float]:
    return draw_severities(_rng(seed, "present"))


def _draw(seed: int, present: Mapping[str, float] | None) -> tuple[Anatomy, dict[str, float], dict[str, Lesion]]:
    """Draw the patient and the abnormalities, which may change the patient's shape."""
    anatomy = draw_anatomy(_rng(seed, "anatomy"))
    chosen = _severities(seed) if present is None else present
    severities = {name: float(chosen[name]) for name in labels() if name in chosen}
    lesions = {
        name: draw(anatomy, severities[name], _rng(seed, name))
        for name, draw in ABNORMALITIES.items()
        if name in severities
    }
    return anatomy, severities, lesions


def _paint(seed: int, grid: Grid, anatomy: Anatomy, lesions: Mapping[str, Lesion], keep_masks: bool) -> Scene:
    canvas = Canvas(grid, anatomy.pose, BODY_MIDDLE, BODY_HALF_WIDTH, keep_masks)
    scene = paint_body(canvas, anatomy, _rng(seed, "texture"))
    for lesion in lesions.values():
        lesion.paint(scene)
    return scene


def _paint_table(voxels: np.ndarray, grid: Grid) -> None:
    """The scanner's table: a thin curved sheet under the patient."""
    x, y, _ = grid.axes
    height = 152 - (x / 45) ** 2  # mm, one per column
    sheet = np.clip(3.0 / grid.spacing[1] - np.abs(y[None, :] - height[:, None]) / grid.spacing[1] + 0.5, 0, 1)
    sheet *= np.abs(x)[:, None] < 180
    voxels += (sheet * 700 * min(1.0, 3.0 / grid.spacing[1]))[:, :, None]


def _noise(seed: int, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    volume = float(np.prod(grid.spacing)) / (1.5 * 1.5 * 3.0)
    rng = _rng(seed, "noise")
    # The difference of two uniform numbers: bell-shaped, variance 1/6, several times faster than a Gaussian.
    noise = rng.random(shape, dtype=np.float32)
    noise -= rng.random(shape, dtype=np.float32)
    # Neighbouring voxels share noise, so it falls slower than with the square root of the volume.
    noise *= NOISE_HU * 6**0.5 * volume**-0.25
    return noise
