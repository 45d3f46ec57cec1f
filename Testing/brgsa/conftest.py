"""Small scans and weights that the library's tests share."""

import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

TORSO_SPACING = (6.0, 6.0, 6.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def torso(seed: int = 0, shape: tuple[int, int, int] = (64, 56, 60)) -> np.ndarray:
    """A body of water with two lungs of air in HU, int16 (X, Y, Z), axes growing Left, Posterior, Superior."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * 6.0 for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 170) ** 2 + (y / 130) ** 2 < 1] = 30
    for side in (-75, 75):
        hu[((x - side) / 55) ** 2 + (y / 85) ** 2 + (z / 130) ** 2 < 1] = -850
    return (hu + generator.normal(0, 15, shape)).round().astype(np.int16)


def save_lps(path: Path, voxels: np.ndarray, spacing=TORSO_SPACING) -> Path:
    """Write a NIfTI whose axes grow Left, Posterior, Superior (NIfTI's world is RAS)."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture(scope="session")
def torso_path(tmp_path_factory) -> Path:
    return save_lps(tmp_path_factory.mktemp("torso") / "torso.nii.gz", torso())


@pytest.fixture
def torso_paths(tmp_path) -> list[Path]:
    """Three scans that differ in noise."""
    folder = tmp_path / "scans"
    folder.mkdir()
    return [save_lps(folder / f"case{n}.nii.gz", torso(n)) for n in range(3)]


def ellipsoid(shape, spacing, centre, radii):
    """Mask of an ellipsoid; `centre` in mm from the middle of the grid, a radius of None is endless."""
    inside = np.zeros(shape, np.float32)
    for axis, (length, step, middle, radius) in enumerate(zip(shape, spacing, centre, radii, strict=True)):
        if radius is not None:
            place = (np.arange(length) - (length - 1) / 2) * step - middle
            inside = inside + ((place / radius) ** 2).reshape([-1 if a == axis else 1 for a in range(3)])
    return inside <= 1


@pytest.fixture(scope="session")
def chest():
    """A chest in 2 x 2 x 3 mm voxels: (X, Y, Z) int16 HU, axes growing Left, Posterior, Superior, and its LPS affine.

    Noisy air round an elliptical body of soft tissue, two lung ellipsoids of 2 litres each, a spine.
    """
    shape, spacing = (160, 120, 100), (2.0, 2.0, 3.0)
    hu = np.full(shape, -1000.0, np.float32)
    hu[ellipsoid(shape, spacing, (0, 0, 0), (145, 100, None))] = 40
    hu[ellipsoid(shape, spacing, (0, 70, 0), (20, 20, None))] = 400
    for side in (-70, 70):
        hu[ellipsoid(shape, spacing, (side, 0, 0), (55, 75, 120))] = -850
    hu += np.random.default_rng(0).normal(0, 20, shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-159, -119, -100)
    return hu.round().astype(np.int16), affine


@pytest.fixture(scope="session")
def save_nifti():
    """Function (path, voxels, LPS affine) that writes a NIfTI file and returns its path."""
    import nibabel

    def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
        nibabel.Nifti1Image(voxels, TO_RAS @ affine).to_filename(path)
        return path

    return save


@pytest.fixture
def save_lungs_behind(save_nifti, tmp_path):
    """Function (mm) that writes a scan of 500 mm with its chest so far behind the middle, and returns its path."""
    shape, spacing = (100, 100, 100), (5.0, 5.0, 5.0)

    def save(mm: float) -> Path:
        hu = np.full(shape, -1000, np.int16)
        hu[ellipsoid(shape, spacing, (0, mm, 0), (170, 90, None))] = 40
        for side in (-75, 75):
            hu[ellipsoid(shape, spacing, (side, mm, 0), (60, 60, 150))] = -850
        return save_nifti(tmp_path / f"{mm:g}.nii.gz", hu, np.diag([*spacing, 1.0]))

    return save


@pytest.fixture(scope="session")
def save_dicom():
    """Function (path, pixels, **header) that writes one CT slice, or several frames, and returns its path."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def save(path: Path, pixels: np.ndarray, position=(0.0, 0.0, 0.0), series="1.2.3.1", **header) -> Path:
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = header.get("SOPClassUID", CTImageStorage)
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.SeriesInstanceUID, image.StudyInstanceUID = series, "1.2.3"
        image.PatientName, image.PatientID = "Doe^Jane", "SECRET-42"
        image.Modality, image.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        if position is not None:
            image.ImagePositionPatient = list(position)
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [2.0, 1.5], 3.0
        image.Rows, image.Columns = pixels.shape[-2:]
        if pixels.ndim == 3:
            image.NumberOfFrames = len(pixels)
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        for name, value in header.items():
            if value is None:
                delattr(image, name)
            else:
                setattr(image, name, value)
        image.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save_as(path, enforce_file_format=True)
        return path

    return save


@pytest.fixture(scope="session")
def save_series(save_dicom):
    """Function (folder, depths in mm, **header) that writes one axial slice of 12 columns x 10 rows per depth.

    Every voxel of a slice has the slice's depth as its HU, but for a mark of 700 HU at column 2, row 1.
    """

    def save(folder: Path, depths, name="slice", **header) -> Path:
        for number, depth in enumerate(depths):
            pixels = np.full((10, 12), round(depth), np.int16)
            pixels[1, 2] = 700
            save_dicom(
                folder / f"{name}{number:03}.dcm", pixels, (5.0, 6.0, depth), InstanceNumber=number + 1, **header
            )
        return folder

    return save


@pytest.fixture
def in_process(capfd):
    """Function (*arguments) that runs the command `brgsa` inside this process, as `subprocess.run` would its own."""
    from brgsa.commands.main import main

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call
