"""A coarse look at a CT, about 5 mm per voxel: padding, body and air-filled lungs, in a fraction of a second."""

from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from brgsa.ct.itk import quiet_simpleitk
from brgsa.ct.volume import CTVolume

_GRID_MM = 5.0
_TISSUE_ABOVE = -300.0
# Averaged lung lies between air (-1000) and tissue; gas in the bowel and room air lie below.
_LUNG_HU = (-970.0, -400.0)
_SMALLEST_PART_LITRES = 0.03
_BONE_ABOVE = 150.0
_HARDLY_ANY_LUNG = 0.15  # of the widest slice
_AIR = -1024.0


@dataclass(frozen=True)
class Field:
    """What `sample_field` found. Arrays are (X, Y, Z) on a grid of `spacing` mm, axes as in `CTVolume`.

    `all_values` are sampled HU, about every 4 mm; `padding_value` is the constant outside the field of view, None where
    there is none, and `padding_part` its part of the volume.
    """

    all_values: np.ndarray
    padding_value: float | None
    padding_part: float
    padding: np.ndarray
    hu: np.ndarray
    spacing: tuple[float, float, float]

    @cached_property
    def values(self) -> np.ndarray:
        """Sampled values without padding, flat; all of them where everything is padding."""
        if self.padding_value is None:
            return self.all_values.ravel()
        values = self.all_values[self.all_values != self.padding_value]
        return values if values.size else self.all_values.ravel()

    @cached_property
    def range(self) -> tuple[float, float]:
        """The values that 0.1 % of the voxels lie below and above."""
        low, high = np.percentile(self.values, (0.1, 99.9))
        return float(low), float(high)

    @cached_property
    def body(self) -> np.ndarray:
        """The largest connected piece of tissue."""
        labels, sizes = _components(self.hu > _TISSUE_ABOVE)
        return labels == sizes.argmax() if sizes.any() else np.zeros(self.hu.shape, bool)

    @cached_property
    def lungs(self) -> np.ndarray:
        """Voxels with the density of aerated lung, in pieces over 30 mL that lie inside the body.

        Inside is where most of the piece has the body on at least three of its four sides within the slice. So lungs
        that the border cuts count too, and the foam of the table, which has the body on one side, does not.
        """
        inside = sum(_body_beyond(self.body, axis, step) for axis in (0, 1) for step in (1, -1)) >= 3
        low, high = _LUNG_HU
        labels, sizes = _components(_open((self.hu > low) & (self.hu < high)))
        sizes_inside = np.bincount(labels[inside], minlength=len(sizes))
        return ((sizes * self._litres_per_voxel >= _SMALLEST_PART_LITRES) & (sizes_inside > sizes / 2))[labels]

    @property
    def lung_litres(self) -> float:
        return float(np.count_nonzero(self.lungs) * self._litres_per_voxel)

    @property
    def body_litres(self) -> float:
        return float(np.count_nonzero(self.body) * self._litres_per_voxel)

    @property
    def _litres_per_voxel(self) -> float:
        return float(np.prod(self.spacing)) * 1e-6

    def cut_parts(self) -> list[tuple[float, float]]:
        """For X, Y and Z: the part of the lungs' outline seen along the axis that lies on the low and the high border.

        The border is the volume's face, or padding outside a round or turned field of view.
        """
        parts = []
        for axis in range(3):
            outline = np.count_nonzero(self.lungs.any(axis=axis))
            lungs, padding = np.moveaxis(self.lungs, axis, 0), np.moveaxis(self.padding, axis, 0)
            low = np.concatenate([lungs[:1], lungs[1:] & padding[:-1]]).any(axis=0)
            high = np.concatenate([lungs[:-1] & padding[1:], lungs[-1:]]).any(axis=0)
            parts.append((np.count_nonzero(low) / outline, np.count_nonzero(high) / outline))
        return parts

    def lung_outside(self, window_mm: tuple[float, float, float]) -> float:
        """The part of the lungs that lies outside a central box of `window_mm`."""
        inside = np.ones((1, 1, 1), bool)
        for axis, (length, step, window) in enumerate(zip(self.hu.shape, self.spacing, window_mm, strict=True)):
            near = np.abs(np.arange(length) - (length - 1) / 2) * step <= window / 2
            inside = inside & near.reshape([-1 if a == axis else 1 for a in range(3)])
        return float(np.count_nonzero(self.lungs & ~inside) / np.count_nonzero(self.lungs))

    def lung_sides(self) -> tuple[float, float]:
        """The parts of the lungs right and left of the body's middle."""
        along_x = np.count_nonzero(self.body | self.lungs, axis=(1, 2)).cumsum()
        middle = int(np.searchsorted(along_x, along_x[-1] / 2))
        right = np.count_nonzero(self.lungs[:middle]) / np.count_nonzero(self.lungs)
        return right, 1.0 - right

    def upside_down(self) -> tuple[float, float]:
        """Two signs that the lower end of the lungs, as the header has it, is their upper end: the higher, the surer.

        The first is how much more of the body is bone round the lowest quarter of the lungs than round the highest, as
        a logarithm: the shoulder girdle is at the top. The second is how much further to the front the lungs lie in
        the lowest quarter than in the highest, in standard deviations of the body's depth there: the lungs' bases reach
        far down behind the diaphragm.
        """
        area = np.count_nonzero(self.lungs, axis=(0, 1))
        # Bowel gas below the lungs and stray air above them do not count: from the widest slice until hardly any lung.
        few = np.flatnonzero(area < _HARDLY_ANY_LUNG * area.max())
        widest = int(area.argmax())
        first = max(few[few < widest], default=-1) + 1
        last = min(few[few > widest], default=len(area)) - 1
        quarter = max(1, round((last - first + 1) / 4))
        (low_bone, low_depth), (high_bone, high_depth) = (
            self._bone_and_depth(part) for part in (slice(first, first + quarter), slice(last - quarter + 1, last + 1))
        )
        return float(np.log(low_bone / high_bone)), high_depth - low_depth

    def _bone_and_depth(self, slices: slice) -> tuple[float, float]:
        """In some slices, the part of the body that is bone, and how far the lungs lie behind the body's middle."""
        lungs, body, hu = (array[:, :, slices] for array in (self.lungs, self.body, self.hu))
        bone = np.count_nonzero(body & (hu > _BONE_ABOVE)) / max(np.count_nonzero(body), 1)
        y = np.arange(hu.shape[1])
        lung, chest = np.count_nonzero(lungs, axis=(0, 2)), np.count_nonzero(lungs | body, axis=(0, 2))
        middle = np.average(y, weights=chest)
        depth = np.sqrt(np.average((y - middle) ** 2, weights=chest))
        return bone + 0.005, float((np.average(y, weights=lung) - middle) / max(depth, 1.0))


def sample_field(volume: CTVolume) -> Field:
    """Sample a volume about every 2 mm within slices and 5 mm across them, and average to about 5 mm."""
    steps = [max(1, int(wanted / size)) for wanted, size in zip((2.0, 2.0, _GRID_MM), volume.spacing, strict=True)]
    sample = np.ascontiguousarray(volume.voxels[:: steps[0], :: steps[1], :: steps[2]])
    sampled = [size * step for size, step in zip(volume.spacing, steps, strict=True)]
    padding_value, padding_part = _padding(sample)
    blocks = [min(max(1, round(_GRID_MM / size)), length) for size, length in zip(sampled, sample.shape, strict=True)]
    # What is left of a block at the far side, under 5 mm, is dropped.
    shape = [length // block for length, block in zip(sample.shape, blocks, strict=True)]
    trimmed = sample[tuple(slice(count * block) for count, block in zip(shape, blocks, strict=True))]
    padded = np.zeros(trimmed.shape, bool) if padding_value is None else trimmed == padding_value
    filled = np.where(padded, np.array(_AIR, trimmed.dtype), trimmed).astype(np.float32, copy=False)
    hu = _by_block(filled, blocks, np.add) / np.float32(np.prod(blocks))
    return Field(
        all_values=sample[::2, ::2],
        padding_value=padding_value,
        padding_part=padding_part,
        padding=_by_block(padded, blocks, np.logical_and),
        hu=hu,
        spacing=tuple(size * block for size, block in zip(sampled, blocks, strict=True)),
    )


def _by_block(array: np.ndarray, blocks: list[int], combine: np.ufunc) -> np.ndarray:
    """Combine the values of each block into one; several times faster than a reduction over a reshaped array."""
    for axis, block in enumerate(blocks):
        along = np.moveaxis(array, axis, 0)
        array = np.moveaxis(reduce(combine, (along[start::block] for start in range(block))), 0, axis)
    return array


def _padding(sample: np.ndarray) -> tuple[float | None, float]:
    """Find the one value that fills the corners of nearly all slices and at least 2 % of the volume."""
    corners = sample[:: max(sample.shape[0] - 1, 1), :: max(sample.shape[1] - 1, 1)]
    values, counts = np.unique(corners, return_counts=True)
    value = values[counts.argmax()]
    part = float(np.mean(sample == value))
    if counts.max() < 0.9 * corners.size or part < 0.02:
        return None, 0.0
    return float(value), part


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label face-connected pieces; `sizes[label]` is their number of voxels, 0 for the background."""
    sitk = quiet_simpleitk()
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8))))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def _open(mask: np.ndarray) -> np.ndarray:
    """Remove layers one or two voxels thin in a slice (skin, bowel walls), keeping what touches the border."""
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)), mode="edge")
    kept = np.pad(mask & _around(padded, np.logical_and), ((1, 1), (1, 1), (0, 0)))
    return (kept[1:-1, 1:-1] | _around(kept, np.logical_or)) & mask


def _around(padded: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Combine the four neighbours in the slice of each voxel of an array padded by one."""
    sides = combine(padded[:-2, 1:-1], padded[2:, 1:-1])
    return combine(sides, combine(padded[1:-1, :-2], padded[1:-1, 2:]))


def _body_beyond(body: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Where the body comes again further along an axis, upwards (+1) or downwards (-1)."""
    flipped = np.flip(body, axis) if step > 0 else body
    seen = np.logical_or.accumulate(flipped, axis=axis).astype(np.int8)
    return np.flip(seen, axis) if step > 0 else seen
