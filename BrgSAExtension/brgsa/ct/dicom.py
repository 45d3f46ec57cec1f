"""Reading one DICOM series as a volume through SimpleITK (GDCM), which applies the rescaling to HU."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from brgsa.ct.decoder import DECODER, DamagedError, ReaderDiedError
from brgsa.ct.dicom_header import Image, placed_frames, require_pixels
from brgsa.ct.dicom_series import SAME_POSITION, choose_series
from brgsa.ct.source import Source, require_three_axes
from brgsa.errors import InputError

# Slices decoded at a time, and their pixels: bounds the memory that SimpleITK's wider integers take.
_BLOCK = 32
_BLOCK_VOXELS = 1 << 23


def read_dicom(path: Path, series: str | None = None) -> tuple[np.ndarray, Source]:
    """Read one series: voxels (columns, rows, slices; int16 or float32 HU) and their source.

    A folder gives the first series of `list_series`, or the one named by `series`; a file gives the series that it
    belongs to, from its folder; a multi-frame file gives its frames. Slices are put in the order of their positions
    along the normal, repeated positions are used once, slices of another size or direction are left out, and
    `Source.messages` says so.

    Raises:
        InputError: no images, no positions, or damaged pixel data.
        UsageError: `series` is not in the folder.
    """
    chosen, messages = choose_series(path, series)
    first = chosen.images[0]
    if first.samples != 1:
        raise InputError(f"{first.path}: holds colour pictures, not a CT; give the CT series itself.")
    if first.frames > 1:
        voxels, affine, depths, repeats = _read_frames(first)
        shape, known = voxels.shape, depths is not None
        if not known:
            messages.append("the file gives no position per frame; the frames were taken in their order")
    else:
        if first.position is None or first.orientation is None:
            raise InputError(f"{first.path}: the slices have no place in the patient; give a CT series.")
        shape, more = require_three_axes(path, (first.columns, first.rows, len(chosen.images)))
        messages.extend(more)
        depths, repeats, known = tuple(image.depth for image in chosen.images), chosen.repeats, True
        affine = _affine(first, chosen.images[-1].position, len(chosen.images))
        voxels = _read_slices(chosen.images, shape)
    if repeats:
        messages.append(f"{repeats} slices repeat the position of another slice and were left out")
    if chosen.left_out:
        messages.append(f"{chosen.left_out} images of the series with another size or direction were left out")
    source = Source(
        path=path,
        format="dicom",
        stored_shape=shape,
        stored_affine=affine,
        stored_dtype=voxels.dtype.name,
        slope=first.slope,
        intercept=first.intercept,
        orientation_known=known,
        modality=first.modality,
        series_uid=first.uid,
        slice_positions=depths,
        slice_thickness=first.thickness,
        duplicate_slices=repeats,
        messages=tuple(messages),
    )
    return voxels, source


def _affine(first: Image, last_position: Iterable[float], count: int) -> np.ndarray:
    """Index (column, row, slice) to LPS mm; the slice step is the mean step between positions, so a tilt is kept."""
    if first.orientation is None or first.pixel_spacing is None:
        raise InputError(f"{first.path}: the header has no orientation or pixel spacing; export the CT series again.")
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.pixel_spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.pixel_spacing[0]
    affine[:3, 2] = (np.array(last_position) - np.array(first.position)) / max(count - 1, 1)
    affine[:3, 3] = first.position
    return affine


def _read_slices(images: tuple[Image, ...], shape: tuple[int, int, int]) -> np.ndarray:
    """Decode the slices, in blocks, into one array (columns, rows, slices). GDCM applies each slice's own rescaling."""
    for image in images:
        require_pixels(image)
    whole = all(image.slope == 1 and image.intercept.is_integer() for image in images)
    block = max(1, min(_BLOCK, _BLOCK_VOXELS // (shape[0] * shape[1])))
    for kind in (np.int16, np.float32) if whole else (np.float32,):
        stack = np.empty(shape[::-1], kind)
        starts = range(0, len(images), block)
        if all(_decode(images[start : start + block], whole, stack[start : start + block]) for start in starts):
            break
    return stack.transpose(2, 1, 0)


def _decode(block: tuple[Image, ...], whole: bool, hu: np.ndarray) -> bool:
    try:
        return DECODER.slices([image.path for image in block], whole, hu)
    except (DamagedError, ReaderDiedError) as error:
        raise InputError(
            f"{_culprit(block, hu[:1])}: the pixel data are cut short or damaged; copy it again."
        ) from error


def _culprit(block: Iterable[Image], one: np.ndarray) -> Path:
    for image in block:
        try:
            DECODER.slices([image.path], False, one.astype(np.float32))
        except (DamagedError, ReaderDiedError):
            return image.path
    return image.path.parent


def _read_frames(image: Image) -> tuple[np.ndarray, np.ndarray, tuple[float, ...] | None, int]:
    """Read a multi-frame file: voxels (columns, rows, frames), affine, frame positions (None: not given), repeats."""
    require_three_axes(image.path, (image.columns, image.rows, image.frames))
    require_pixels(image)
    for kind in (np.int16, np.float32):
        voxels = np.empty((image.frames, image.rows, image.columns), kind)
        try:
            read = DECODER.frames(image.path, voxels)
        except DamagedError as error:
            raise InputError(f"{image.path}: the pixel data are cut short or damaged; copy it again.") from error
        if read["fits"]:
            break
    voxels = voxels.transpose(2, 1, 0)
    placed, positions = placed_frames(image)
    if positions is None:
        affine = np.eye(4)
        affine[:3, :3] = np.array(read["direction"]).reshape(3, 3) * np.array(read["spacing"])
        affine[:3, 3] = read["origin"]
        return voxels, affine, None, 0
    depths = positions @ placed.normal
    order = np.argsort(depths, kind="stable")
    kept = order[np.concatenate([[True], np.diff(depths[order]) > SAME_POSITION])]
    if kept.tolist() != list(range(image.frames)):
        voxels = voxels[:, :, kept]
    affine = _affine(replace(placed, position=tuple(positions[kept[0]])), positions[kept[-1]], len(kept))
    return voxels, affine, tuple(float(depth) for depth in depths[kept]), image.frames - len(kept)
