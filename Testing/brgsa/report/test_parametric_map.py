"""The heat map as a DICOM Parametric Map: valid for other readers, on the scan's slices, in the patient's study."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

from brgsa.ct.volume import read_ct
from brgsa.errors import InputError
from brgsa.heatmap import HeatMap
from brgsa.report.parametric_map import EXPLANATION, LABEL, write_parametric_map

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
SETTINGS = {"weights": "phantom"}
NOTICE = "demonstration: these weights know only digital phantoms"
# out of order, unevenly spaced, one position twice
DEPTHS = (9, 0, 3, 6, 12, 15.5, 3)


@pytest.fixture(scope="module")
def folder(save_series, tmp_path_factory):
    return save_series(tmp_path_factory.mktemp("map") / "series", DEPTHS)


@pytest.fixture(scope="module")
def scan(folder):
    return read_ct(folder)


@pytest.fixture(scope="module")
def heat(scan):
    values = np.random.default_rng(0).random(scan.voxels.shape, np.float32)
    values[scan.voxels == 700] = 1  # the mark of every slice
    return HeatMap("Emphysema", "rollout", np.zeros((1, 1, 1)), values, (0, 0, 0), (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def path(scan, heat, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_parametric_map(folder.parent / "map.dcm", heat, scan, SETTINGS, NOTICE, 4)
    return folder.parent / "map.dcm"


def images(folder):
    return [pydicom.dcmread(each) for each in folder.iterdir()]


def test_every_frame_lies_on_a_slice_of_the_scan_and_has_its_values(path, folder, scan, heat):
    import highdicom

    document = highdicom.imread(path)
    frames = document.get_frames(apply_real_world_transform=True)
    by_depth = {float(image.ImagePositionPatient[2]): image for image in images(folder)}
    assert len(frames) == len(by_depth) == document.NumberOfFrames
    shared = document.SharedFunctionalGroupsSequence[0]
    found = {}
    for frame, group in zip(frames, document.PerFrameFunctionalGroupsSequence, strict=True):
        position = group.PlanePositionSequence[0].ImagePositionPatient
        image = by_depth[float(position[2])]
        assert position == image.ImagePositionPatient
        marked = image.pixel_array == 1724  # 700 HU
        np.testing.assert_allclose(frame[marked], 1)
        found[float(position[2])] = frame
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [2.0, 1.5]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    stacked = np.stack([found[depth] for depth in sorted(found)])  # slices, rows, columns
    np.testing.assert_allclose(stacked, scan.to_stored(heat.volume).T, atol=0.5 / 255 + 1e-6)


def test_another_library_builds_the_same_volume(save_series, tmp_path):
    import highdicom

    scan = read_ct(save_series(tmp_path / "series", (6, 0, 3, 9)))
    values = np.random.default_rng(1).random(scan.voxels.shape, np.float32)
    heat = HeatMap("Emphysema", "rollout", np.zeros((1, 1, 1)), values, (0, 0, 0), (0.0, 0.0, 0.0))
    write_parametric_map(tmp_path / "map.dcm", heat, scan, SETTINGS)
    volume = highdicom.imread(tmp_path / "map.dcm").get_volume(apply_real_world_transform=True)
    place = volume.affine @ [*(np.array(volume.spatial_shape) - 1), 1]  # of the last voxel
    index = tuple(np.rint(np.linalg.inv(scan.affine) @ place)[:3].astype(int))
    assert volume.spatial_shape == scan.to_stored(values).T.shape
    assert volume.array[-1, -1, -1] == pytest.approx(values[index], abs=0.5 / 255)


def test_it_is_a_series_of_its_own_in_the_study_and_refers_to_every_slice(path, folder):
    document, series = pydicom.dcmread(path), images(folder)
    assert (document.PatientName, document.PatientID) == ("Doe^Jane", "SECRET-42")
    assert document.StudyInstanceUID == series[0].StudyInstanceUID
    assert document.SeriesInstanceUID != series[0].SeriesInstanceUID
    assert document.SeriesNumber == 9104
    sources = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: group.PlanePositionSequence[0]
        for group in document.PerFrameFunctionalGroupsSequence
    }
    for image in series:
        if image.SOPInstanceUID in sources:
            assert sources[image.SOPInstanceUID].ImagePositionPatient == image.ImagePositionPatient
    assert len(sources) == len(set(DEPTHS))


def test_the_frame_of_reference_is_that_of_the_series(save_series, heat, tmp_path):
    folder = save_series(tmp_path / "series", DEPTHS, FrameOfReferenceUID="1.2.3.4")
    write_parametric_map(tmp_path / "map.dcm", heat, read_ct(folder), SETTINGS)
    assert pydicom.dcmread(tmp_path / "map.dcm").FrameOfReferenceUID == "1.2.3.4"


def test_it_says_that_it_is_attention_and_no_segmentation(path):
    document = pydicom.dcmread(path)
    assert document.ContentLabel == LABEL == "MODEL_ATTENTION"
    assert document.ContentDescription == "Model attention, not a segmentation: Emphysema"
    assert document.SeriesDescription == "Attention, no segmentation: Emphysema; demonstration weights"
    assert document.ContentQualification == "RESEARCH"
    mapping = document.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.LUTExplanation == EXPLANATION
    assert mapping.RealWorldValueFirstValueMapped == 0 and mapping.RealWorldValueLastValueMapped == 255
    assert mapping.RealWorldValueSlope * 255 + mapping.RealWorldValueIntercept == pytest.approx(1)


def test_a_file_of_many_frames_gets_its_map_frame_by_frame(tmp_path, save_dicom):
    depths = (6.0, 0.0, 3.0)
    pixels = np.stack([np.full((10, 12), depth, np.int16) for depth in depths])
    groups = []
    for depth in depths:
        group = pydicom.Dataset()
        group.PlanePositionSequence = [pydicom.Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = [5.0, 6.0, depth]
        groups.append(group)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [pydicom.Dataset()], [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [2.0, 1.5]
    shared.PixelMeasuresSequence[0].SliceThickness = 3.0
    path = save_dicom(
        tmp_path / "scan.dcm",
        pixels,
        position=None,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
    )
    scan = read_ct(path)
    values = (scan.voxels / 6).astype(np.float32)  # 0, 0.5 and 1 from the lowest slice upwards
    heat = HeatMap("Emphysema", "rollout", np.zeros((1, 1, 1)), values, (0, 0, 0), (0.0, 0.0, 0.0))
    write_parametric_map(tmp_path / "map.dcm", heat, scan, SETTINGS)
    document = pydicom.dcmread(tmp_path / "map.dcm")
    for frame, group in zip(document.pixel_array, document.PerFrameFunctionalGroupsSequence, strict=True):
        depth = group.PlanePositionSequence[0].ImagePositionPatient[2]
        np.testing.assert_allclose(frame / 255, depth / 6, atol=0.5 / 255 + 1e-6)


def test_dcmtk_reads_it(path):
    if not shutil.which("dcmdump"):
        pytest.skip("dcmtk is not installed")
    done = subprocess.run(["dcmdump", "+P", "SOPClassUID", "+P", "ContentLabel", path], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    assert "ParametricMapStorage" in done.stdout and LABEL in done.stdout


def test_a_validator_of_the_standard_finds_no_error(path):
    if not shutil.which("dciodvfy"):
        pytest.skip("dicom3tools is not installed")
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert not errors and "ParametricMap" in done.stderr, done.stderr


def test_a_scan_that_is_not_dicom_is_refused_in_one_line(scored, tmp_path):
    with pytest.raises(InputError, match="needs a DICOM series"):
        write_parametric_map(tmp_path / "map.dcm", scored.maps[0], scored.scan.volume, SETTINGS)
    assert not list(tmp_path.iterdir())
