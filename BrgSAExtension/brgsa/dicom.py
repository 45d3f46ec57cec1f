"""Reading DICOM through SimpleITK (GDCM): which series a folder holds, and one series as a volume."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from brgsa.errors import InputError, UsageError
from brgsa.itk_image import quiet_simpleitk
from brgsa.stored import Source, file_format, file_size, require_plausible_size, require_three_axes, to_hu, unreadable

# Slices nearer to each other than this are repeats of one position (mm).
_SAME_POSITION = 0.01
# Slices decoded at a time: bounds the memory that SimpleITK's wider integers take.
_BLOCK = 32
_OTHER_OBJECTS = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "DOC", "RWV", "FID"}
# (0020,0032) ImagePositionPatient, with or without its explicit type, as it stands in a multi-frame file's header.
_FRAME_POSITION = re.compile(rb"\x20\x00\x32\x00(?:DS..|..\x00\x00)([-+0-9.eE \\]+)", re.DOTALL)


@dataclass(frozen=True)
class Image:
    """The header of one DICOM file, without anything about the patient. Lengths are in mm, positions in LPS."""

    path: Path
    uid: str
    modality: str
    description: str
    number: int
    instance: int
    rows: int
    columns: int
    frames: int
    samples: int
    pixel_spacing: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    localizer: bool

    @property
    def geometry(self) -> tuple:
        """What the slices of one volume have in common."""
        spacing = self.pixel_spacing and tuple(round(value, 4) for value in self.pixel_spacing)
        cosines = self.orientation and tuple(round(value, 3) + 0.0 for value in self.orientation)
        return self.rows, self.columns, self.frames, spacing, cosines, self.localizer

    @property
    def normal(self) -> np.ndarray | None:
        """The slice normal: row direction x column direction."""
        return None if self.orientation is None else np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def depth(self) -> float:
        """Position along the normal (mm)."""
        return float(np.dot(self.normal, self.position))


@dataclass(frozen=True)
class Series:
    """One series in a folder. `slices` counts the different positions of its largest run of equal geometry.

    `orientation` is "axial", "coronal", "sagittal" or "unknown"; `localizer` marks scout images.
    """

    uid: str
    modality: str
    description: str
    number: int
    slices: int
    orientation: str
    localizer: bool
    images: tuple[Image, ...] = field(repr=False)
    repeats: int = field(default=0, repr=False)
    left_out: int = field(default=0, repr=False)

    def __str__(self) -> str:
        kind = "localizer" if self.localizer else self.orientation
        return f"{self.uid} ({self.modality} {self.description!r}, {kind}, {self.slices} slices)"


def list_series(folder: str | Path) -> list[Series]:
    """List the DICOM image series that lie directly in a folder, the one that `read_ct` would take first.

    The order is: CT, not a localizer, axial, most slices; then the lower series number and UID. Files that are no DICOM
    images are passed over. Nothing but headers is read.

    Raises:
        InputError: the folder is missing, cannot be read, or holds no DICOM images.
    """
    folder = Path(folder)
    images = [image for path in folder_files(folder) if (image := read_header(path)) is not None]
    if not images:
        raise InputError(f"{folder}: the folder holds no DICOM images; give the folder in which the .dcm files lie.")
    by_uid = defaultdict(list)
    for image in images:
        by_uid[image.uid].append(image)
    return sorted((_series(members) for members in by_uid.values()), key=_preference)


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
    chosen, messages = _choose(path, series)
    first = chosen.images[0]
    if first.samples != 1:
        raise InputError(f"{first.path}: holds colour pictures, not a CT; give the CT series itself.")
    if first.frames > 1:
        voxels, affine, depths, repeats = _read_frames(first)
        shape, known = voxels.shape, depths is not None
        if not known:
            messages.append("the file gives no position per frame; the frames were taken in their order")
    else:
        if first.position is None:
            raise InputError(f"{first.path}: the slices have no position in the patient; give a CT series.")
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


def folder_files(folder: Path) -> list[Path]:
    """List the files of a folder that are not hidden, in the order of their names.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError as error:
        raise unreadable(folder, error) from error


def read_header(path: Path) -> Image | None:
    """Read one file's DICOM header; None when it is not a DICOM image.

    Raises:
        InputError: the file cannot be opened.
    """
    if path.name.upper() == "DICOMDIR" or file_format(path) != "dicom":
        return None
    reader = quiet_simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None

    def text(tag: str) -> str:
        if not reader.HasMetaDataKey(tag):
            return ""
        try:
            return reader.GetMetaData(tag).strip(" \0")
        except UnicodeDecodeError:
            return ""

    cosines = _numbers(text("0020|0037"), 6)
    size = reader.GetSize()
    return Image(
        path=path,
        uid=text("0020|000e"),
        modality=text("0008|0060"),
        description=" ".join(text("0008|103e").split()),
        number=int(_number(text("0020|0011"), 0)),
        instance=int(_number(text("0020|0013"), 0)),
        rows=int(size[1]),
        columns=int(size[0]),
        frames=int(size[2]) if len(size) > 2 else 1,
        samples=reader.GetNumberOfComponents(),
        pixel_spacing=_numbers(text("0028|0030"), 2),
        orientation=cosines if cosines and np.linalg.norm(np.cross(cosines[:3], cosines[3:])) > 0.5 else None,
        position=_numbers(text("0020|0032"), 3),
        thickness=_number(text("0018|0050"), None),
        slope=_number(text("0028|1053"), 1.0),
        intercept=_number(text("0028|1052"), 0.0),
        localizer="LOCALIZER" in text("0008|0008").upper(),
    )


def _number(text: str, default):
    numbers = _numbers(text, 1)
    return default if numbers is None else numbers[0]


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(word) for word in text.split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _series(members: list[Image]) -> Series:
    """Sort out the images of one series: the largest run of equal geometry, in order, each position once."""
    runs = Counter(image.geometry for image in members)
    geometry = max(runs, key=lambda key: (runs[key] * key[2], str(key)))
    run = sorted((image for image in members if image.geometry == geometry), key=lambda i: (i.instance, i.path.name))
    left_out, repeats = len(members) - len(run), 0
    first = run[0]
    if first.frames > 1:
        left_out, run = left_out + len(run) - 1, run[:1]
    elif first.orientation is not None:
        placed = sorted((image for image in run if image.position is not None), key=lambda image: image.depth)
        kept = placed[:1] + [b for a, b in pairwise(placed) if b.depth - a.depth > _SAME_POSITION]
        left_out, repeats = left_out + len(run) - len(placed), len(placed) - len(kept)
        run = kept or run
    return Series(
        uid=first.uid,
        modality=first.modality,
        description=first.description,
        number=first.number,
        slices=first.frames if first.frames > 1 else len(run),
        orientation=_plane(_frame_normal(first) if first.frames > 1 else first.normal),
        localizer=first.localizer,
        images=tuple(run),
        repeats=repeats,
        left_out=left_out,
    )


def _plane(normal: np.ndarray | None) -> str:
    return "unknown" if normal is None else ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]


def _preference(series: Series) -> tuple:
    return (
        series.modality != "CT",
        series.modality in _OTHER_OBJECTS,
        series.localizer,
        series.orientation != "axial",
        -series.slices,
        series.number,
        series.uid,
    )


def _choose(path: Path, series: str | None) -> tuple[Series, list[str]]:
    """Find the series to read and say how it was chosen."""
    if path.is_dir():
        found = list_series(path)
        if series is None:
            return found[0], _choice_messages(found)
        return _named(path, found, series), []
    file_size(path)
    image = read_header(path)
    if image is None:
        raise InputError(f"{path}: is not a readable DICOM image; give the folder or a file of a CT series.")
    if series not in (None, image.uid):
        raise UsageError(f"{path} belongs to the series {image.uid}, not to {series}; give its folder instead.")
    if image.frames > 1:
        return _series([image]), []
    chosen = _named(path.parent, list_series(path.parent), image.uid)
    return chosen, [f"read the whole series of {path.name} from its folder ({chosen.slices} slices)"]


def _choice_messages(found: list[Series]) -> list[str]:
    if len(found) == 1:
        return []
    others = "; ".join(str(other) for other in found[1:])
    return [f"the folder holds {len(found)} series; took {found[0]}; the others are {others}; --series UID chooses"]


def _named(folder: Path, found: Iterable[Series], uid: str) -> Series:
    for candidate in found:
        if candidate.uid == uid:
            return candidate
    listed = "; ".join(map(str, found))
    raise UsageError(f"{folder}: there is no series {uid}; choose one of: {listed}")


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
    sitk = quiet_simpleitk()
    for image in images:
        require_plausible_size(image.path, image.rows * image.columns, file_size(image.path), compressed=True)
    whole = all(image.slope == 1 and image.intercept.is_integer() for image in images)
    stack = np.empty(shape[::-1], np.int16 if whole else np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(image.path) for image in block])
        reader.SetOutputPixelType(sitk.sitkInt32 if whole else sitk.sitkFloat32)
        try:
            read = reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{_culprit(block)}: the pixel data are cut short or damaged; copy it again.") from error
        decoded = to_hu(sitk.GetArrayViewFromImage(read), 1.0, 0.0)
        if decoded.dtype != stack.dtype:
            stack = stack.astype(np.float32, copy=False)
        stack[start : start + len(block)] = decoded
    return stack.transpose(2, 1, 0)


def _culprit(block: Iterable[Image]) -> Path:
    for image in block:
        try:
            _read_file(image.path)
        except RuntimeError:
            return image.path
    return image.path.parent


def _read_file(path: Path):
    reader = quiet_simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    return reader.Execute()


def _read_frames(image: Image) -> tuple[np.ndarray, np.ndarray, tuple[float, ...] | None, int]:
    """Read a multi-frame file: voxels (columns, rows, frames), affine, frame positions (None: not given), repeats."""
    require_three_axes(image.path, (image.columns, image.rows, image.frames))
    size = file_size(image.path)
    require_plausible_size(image.path, image.rows * image.columns * image.frames, size, compressed=True)
    try:
        read = _read_file(image.path)
    except RuntimeError as error:
        raise InputError(f"{image.path}: the pixel data are cut short or damaged; copy it again.") from error
    voxels = to_hu(quiet_simpleitk().GetArrayFromImage(read), 1.0, 0.0).transpose(2, 1, 0)
    direction = np.array(read.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(read.GetSpacing())
    affine[:3, 3] = read.GetOrigin()
    positions = _frame_positions(image)
    if positions is None:
        return voxels, affine, None, 0
    depths = positions @ direction[:, 2]
    order = np.argsort(depths, kind="stable")
    kept = order[np.concatenate([[True], np.diff(depths[order]) > _SAME_POSITION])]
    if kept.tolist() != list(range(image.frames)):
        voxels = voxels[:, :, kept]
    placed = replace(
        image,
        position=tuple(positions[kept[0]]),
        orientation=tuple(direction[:, :2].T.ravel()),
        pixel_spacing=(read.GetSpacing()[1], read.GetSpacing()[0]),
    )
    affine = _affine(placed, positions[kept[-1]], len(kept))
    return voxels, affine, tuple(float(depth) for depth in depths[kept]), image.frames - len(kept)


def _frame_normal(image: Image) -> np.ndarray | None:
    """The normal of a multi-frame file's frames, from the path that their positions take."""
    positions = _frame_positions(image)
    return image.normal if positions is None else positions[-1] - positions[0]


def _frame_positions(image: Image) -> np.ndarray | None:
    """Frame positions (frames, 3), from the per-frame functional groups, which SimpleITK does not hand over."""
    found = []
    for match in _header_matches(image):
        numbers = _numbers(match.decode("ascii").strip(), 3)
        if numbers is None:
            return None
        found.append(numbers)
    return np.array(found) if len(found) == image.frames else None


def _header_matches(image: Image) -> Iterator[bytes]:
    with image.path.open("rb") as file:
        content = file.read()
    # Pixel data come last in the file; nothing behind their tag is a header.
    end = content.rfind(b"\xe0\x7f\x10\x00")
    return (match.group(1) for match in _FRAME_POSITION.finditer(content, 0, end if end > 0 else len(content)))
