"""Slices of a scan through the maximum of a heat map: a grey picture and a coloured layer to lay over it."""

from dataclasses import dataclass

import numpy as np

from brgsa.ct.volume import CTVolume
from brgsa.heatmap import HeatMap

WINDOW_HU = (-1000.0, 500.0)  # lungs and soft tissue in one picture
LOWEST_SHOWN = 0.3  # of the maximum; below it the layer is transparent
STRONGEST_COVER = 0.65
_LONGEST_PIXELS, _LAYER_PIXELS = 320, 80
# Colours of the layer from LOWEST_SHOWN to 1: brightness rises with the value, so that a grey print keeps the order.
COLOURS = ((120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164))


@dataclass(frozen=True)
class KeySlice:
    """One slice.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        number, count: which slice along the plane's axis, from 1.
        width, height: mm.
        grey: uint8 (rows, columns), square pixels.
        layer: RGBA uint8 (rows, columns, 4), covering the same area with fewer pixels.
        mark: place of the maximum, fractions of width and height.
        edges: letters of the patient's directions at the left, right, top and bottom edge.
    """

    plane: str
    number: int
    count: int
    width: float
    height: float
    grey: np.ndarray
    layer: np.ndarray
    mark: tuple[float, float]
    edges: tuple[str, str, str, str]


def key_slices(scan: CTVolume, heat: HeatMap) -> list[KeySlice]:
    """The three slices through the maximum, in the radiologist's orientation (the patient's right is at the left)."""
    return [
        _slice(scan, heat, "axial", axis=2, across=0, down=1, upward=False, edges="RLAP"),
        _slice(scan, heat, "coronal", axis=1, across=0, down=2, upward=True, edges="RLSI"),
        _slice(scan, heat, "sagittal", axis=0, across=1, down=2, upward=True, edges="APSI"),
    ]


def _slice(
    scan: CTVolume, heat: HeatMap, plane: str, axis: int, across: int, down: int, upward: bool, edges: str
) -> KeySlice:
    index = heat.maximum[axis]

    def cut(array: np.ndarray, longest: int) -> np.ndarray:
        # A view: `take` would copy the whole scan. The axes that remain are in ascending order, (across, down).
        picture = np.moveaxis(array, axis, 0)[index].T
        picture = picture[::-1] if upward else picture
        size = np.array([height, width]) / max(height, width) * longest
        return resize(picture.astype(np.float32), tuple(int(n) for n in np.maximum(np.rint(size), 1)))

    columns, rows = scan.voxels.shape[across], scan.voxels.shape[down]
    width, height = columns * scan.spacing[across], rows * scan.spacing[down]
    low, high = WINDOW_HU
    grey = np.clip((cut(scan.voxels, _LONGEST_PIXELS) - low) / (high - low), 0, 1) * 255
    place = (heat.maximum[across] + 0.5) / columns, (heat.maximum[down] + 0.5) / rows
    return KeySlice(
        plane=plane,
        number=index + 1,
        count=scan.voxels.shape[axis],
        width=width,
        height=height,
        grey=grey.astype(np.uint8),
        layer=coloured(cut(heat.volume, _LAYER_PIXELS)),
        mark=(place[0], 1 - place[1] if upward else place[1]),
        edges=tuple(edges),
    )


def coloured(values: np.ndarray) -> np.ndarray:
    """Values 0..1 as RGBA, uint8 (rows, columns, 4); the stronger the value, the less it lets through."""
    share = np.clip((values - LOWEST_SHOWN) / (1 - LOWEST_SHOWN), 0, 1)
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(share, stops, channel) for channel in zip(*COLOURS, strict=True)]
    cover = np.where(values < LOWEST_SHOWN, 0, 0.1 + 0.9 * share) * STRONGEST_COVER * 255
    return np.stack([*channels, cover], axis=-1).astype(np.uint8)


def resize(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample a picture linearly to another number of rows and columns that cover the same area."""
    for axis, size in enumerate(shape):
        count = picture.shape[axis]
        positions = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        lower = np.minimum(positions.astype(np.intp), max(count - 2, 0))
        weight = (positions - lower).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        upper = np.minimum(lower + 1, count - 1)
        picture = picture.take(lower, axis) * (1 - weight) + picture.take(upper, axis) * weight
    return picture
