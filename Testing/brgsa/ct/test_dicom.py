"""Reading DICOM: which series is taken, the order of slices, and files that are not what they seem."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brgsa.ct.names import series_key
from brgsa.ct.volume import list_series, read_ct
from brgsa.errors import InputError, UsageError

DEPTHS = [-30.0, -27.5, -25.0, -22.5, -20.0]


def depths_of(volume):
    """The HU that `save_series` put into each slice, from the bottom up."""
    return volume.voxels[-1, -1].tolist()


def test_slices_are_ordered_by_position_whatever_their_names(tmp_path, save_series):
    folder = save_series(tmp_path / "series", DEPTHS[::-1])
    volume = read_ct(folder)
    assert depths_of(volume) == [round(depth) for depth in DEPTHS]
    assert volume.voxels.dtype == np.int16
    assert volume.voxels.shape == (12, 10, 5)
    assert volume.voxels[2, 1, 0] == 700
    assert volume.spacing == pytest.approx((1.5, 2.0, 2.5))
    assert np.allclose(volume.affine[:3, 3], (5, 6, -30))
    source = volume.source
    assert (source.format, source.modality, source.series_uid) == ("dicom", "CT", "1.2.3.1")
    assert (source.slope, source.intercept, source.slice_thickness) == (1, -1024, 3)
    assert source.slice_positions == pytest.approx(DEPTHS)
    assert source.messages == ()


def test_slices_that_face_up_become_left_posterior_superior(tmp_path, save_series):
    folder = save_series(tmp_path, DEPTHS, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])
    volume = read_ct(folder)
    assert volume.source.stored_axes == "RPI"
    assert depths_of(volume)[0] == -30
    assert volume.voxels[12 - 1 - 2, 1, 0] == 700
    assert np.all(np.diag(volume.affine) > 0)


def test_no_patient_identifier_reaches_the_volume(tmp_path, save_series):
    folder = save_series(tmp_path / "series", DEPTHS, SeriesDescription="Thorax  1.0")
    listed = list_series(folder)
    assert listed[0].description == "Thorax 1.0"
    for text in (repr(read_ct(folder).source), str(listed), repr(listed[0].images)):
        assert "Doe" not in text
        assert "SECRET" not in text


@pytest.mark.parametrize("characters", ["ISO_IR 100", "ISO_IR 192"])
def test_descriptions_with_umlauts_are_read(tmp_path, save_series, characters):
    save_series(tmp_path, DEPTHS, SpecificCharacterSet=characters, SeriesDescription="Körper Süd")
    assert list_series(tmp_path)[0].description == "Körper Süd"


def test_a_length_beyond_the_end_of_the_file_takes_no_memory(tmp_path, save_series):
    path = save_series(tmp_path, DEPTHS) / "slice002.dcm"
    content = path.read_bytes()
    # An unknown type makes GDCM read the length from four bytes: 0x400c5392, a gigabyte.
    broken = content.replace(b"\x28\x00\x30\x00DS\x08\x00", b"\x28\x00\x30\x00\x92S\x0c\x40", 1)
    assert broken != content
    path.write_bytes(broken)
    assert_refused(tmp_path, "slice002.dcm", "cut short or damaged")


@pytest.fixture
def study(tmp_path, save_series, save_dicom):
    """One folder with a scout, a coronal and two axial CT series, an MR series, a report and a text file."""
    folder = tmp_path / "Study Grün"
    save_series(folder, DEPTHS, "thick", series="1.2.3.20", SeriesDescription="5 mm", SeriesNumber=2)
    save_series(folder, np.arange(9) - 30.0, "thin", series="1.2.3.30", SeriesDescription="1 mm", SeriesNumber=3)
    save_series(folder, np.arange(20.0), "mr", series="1.2.3.40", Modality="MR")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    save_series(folder, [0.0], "scout", series="1.2.3.10", **scout)
    for number in range(15):
        save_dicom(
            folder / f"coronal{number}.dcm",
            np.zeros((10, 12), np.int16),
            (0, number, 0),
            series="1.2.3.50",
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        )
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "empty.dcm").touch()
    return folder


def test_the_axial_ct_series_with_the_most_slices_is_taken_and_said(study):
    volume = read_ct(study)
    assert volume.source.series_uid == "1.2.3.30"
    assert volume.voxels.shape[2] == 9
    message, other = volume.source.messages
    assert other == "2 DICOM files without a readable image were left out (first: broken.dcm)"
    assert message.startswith("the folder holds 5 series; took number 3 (CT, axial, 9 slices)")
    assert "number 2 (CT, axial, 5 slices)" in message and "1.2.3" not in message and "mm" not in message


def test_the_series_of_a_folder_are_listed_best_first(study):
    listed = list_series(study)
    assert [series.uid for series in listed] == ["1.2.3.30", "1.2.3.20", "1.2.3.50", "1.2.3.10", "1.2.3.40"]
    assert [series.slices for series in listed] == [9, 5, 15, 1, 20]
    assert [series.orientation for series in listed] == ["axial", "axial", "coronal", "sagittal", "axial"]
    assert [series.localizer for series in listed] == [False, False, False, True, False]


def test_a_named_series_is_read(study):
    for series in ("1.2.3.20", "2", series_key("1.2.3.20")):
        assert read_ct(study, series=series).voxels.shape == (12, 10, 5)
    coronal = read_ct(study, series="1.2.3.50")
    assert coronal.voxels.shape == (12, 15, 10)
    assert coronal.spacing == pytest.approx((1.5, 1.0, 2.0))


def test_an_unknown_series_lists_those_there_are(study):
    with pytest.raises(UsageError, match=r"no such series.*number 3 .*MR") as caught:
        read_ct(study, series="9.9")
    assert "\n" not in str(caught.value)


def test_one_file_stands_for_its_series(study):
    volume = read_ct(study / "thick002.dcm")
    assert volume.source.series_uid == "1.2.3.20"
    assert volume.source.messages == ("read the whole series of thick002.dcm from its folder (5 slices)",)
    with pytest.raises(UsageError, match=r"belongs to another series, number 2"):
        read_ct(study / "thick002.dcm", series="1.2.3.30")


def test_repeated_slices_are_used_once(tmp_path, save_series):
    save_series(tmp_path, DEPTHS)
    for number in range(3):
        shutil.copy(tmp_path / f"slice00{number}.dcm", tmp_path / f"copy{number}.dcm")
    source = read_ct(tmp_path).source
    assert source.stored_shape == (12, 10, 5)
    assert source.duplicate_slices == 3
    assert source.messages == ("3 slices repeat the position of another slice and were left out",)


def test_slices_of_another_size_or_direction_are_left_out(tmp_path, save_series, save_dicom):
    save_series(tmp_path, DEPTHS)
    save_dicom(tmp_path / "big.dcm", np.zeros((20, 20), np.int16), (0, 0, 0))
    save_dicom(tmp_path / "side.dcm", np.zeros((10, 12), np.int16), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    source = read_ct(tmp_path).source
    assert source.stored_shape == (12, 10, 5)
    assert source.messages == ("2 images of the series with another size or direction were left out",)


def test_a_missing_slice_leaves_its_gap_in_the_positions(tmp_path, save_series):
    volume = read_ct(save_series(tmp_path, [0.0, 2.0, 6.0, 8.0]))
    assert volume.source.slice_positions == pytest.approx((0, 2, 6, 8))
    assert volume.spacing[2] == pytest.approx(8 / 3)


def test_gantry_tilt_is_kept_as_a_shear(tmp_path, save_series):
    tilt = np.deg2rad(15)
    folder = save_series(tmp_path, DEPTHS, ImageOrientationPatient=[1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)])
    affine = read_ct(folder).affine
    assert np.allclose(affine[:3, 2], (0, 0, 2.5))
    assert np.allclose(affine[:3, 1], (0, 2 * np.cos(tilt), -2 * np.sin(tilt)), atol=1e-4)


def test_each_slice_keeps_its_own_rescaling(tmp_path, save_dicom):
    for number, slope in enumerate((0.5, 1.0, 2.0)):
        pixels = np.full((10, 12), 400, np.int16)
        save_dicom(tmp_path / f"{number}.dcm", pixels, (0, 0, number), RescaleSlope=slope, RescaleIntercept=-100)
    volume = read_ct(tmp_path)
    assert volume.voxels.dtype == np.float32
    assert volume.voxels[0, 0].tolist() == [1424 * slope - 100 for slope in (0.5, 1.0, 2.0)]


def test_values_beyond_int16_become_float32_in_every_block(tmp_path, save_series, save_dicom):
    save_series(tmp_path, np.arange(40.0))
    save_dicom(tmp_path / "last.dcm", np.full((10, 12), 64000, np.int32), (5, 6, 40.0), RescaleIntercept=0)
    volume = read_ct(tmp_path)
    assert volume.voxels.dtype == np.float32
    assert depths_of(volume) == [*range(40), 65024]


def enhanced(path, save_dicom, depths, **header):
    """Write a multi-frame CT whose frames hold their depth as HU and have their position in functional groups."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**fields):
        dataset = Dataset()
        for name, value in fields.items():
            setattr(dataset, name, value)
        return Sequence([dataset])

    shared = item(
        PixelMeasuresSequence=item(PixelSpacing=[2.0, 1.5], SliceThickness=2.5, SpacingBetweenSlices=2.5),
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
    )
    frames = Sequence([item(PlanePositionSequence=item(ImagePositionPatient=[5, 6, depth]))[0] for depth in depths])
    pixels = np.stack([np.full((10, 12), round(depth), np.int16) for depth in depths])
    pixels[:, 1, 2] = 700
    return save_dicom(
        path,
        pixels,
        None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        SharedFunctionalGroupsSequence=shared,
        PerFrameFunctionalGroupsSequence=frames,
        **header,
    )


@pytest.mark.parametrize("depths", [DEPTHS, DEPTHS[::-1], [DEPTHS[at] for at in (3, 0, 4, 1, 2)]])
def test_a_multi_frame_file_is_read_in_the_order_of_its_positions(tmp_path, save_dicom, depths):
    path = enhanced(tmp_path / "enhanced.dcm", save_dicom, depths)
    for where in (path, tmp_path):
        volume = read_ct(where)
        assert depths_of(volume) == [round(depth) for depth in DEPTHS]
        assert volume.voxels[2, 1, 0] == 700
        assert volume.spacing == pytest.approx((1.5, 2.0, 2.5))
        assert np.allclose(volume.affine[:3, 3], (5, 6, -30))
        assert volume.source.slice_positions == pytest.approx(DEPTHS)
        assert volume.source.orientation_known
    assert list_series(tmp_path)[0].orientation == "axial"
    assert list_series(tmp_path)[0].slices == 5


def test_a_multi_frame_file_without_positions_says_so(tmp_path, save_dicom):
    pixels = np.zeros((5, 10, 12), np.int16)
    volume = read_ct(save_dicom(tmp_path / "frames.dcm", pixels, None, SOPClassUID="1.2.840.10008.5.1.4.1.1.7.3"))
    assert volume.voxels.shape == (12, 10, 5)
    assert not volume.source.orientation_known
    assert "no position per frame" in volume.source.messages[0]


def assert_refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_ct(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_truncated_slice_is_named(tmp_path, save_series, capfd):
    folder = save_series(tmp_path, DEPTHS)
    content = (folder / "slice003.dcm").read_bytes()
    (folder / "slice003.dcm").write_bytes(content[:-100])
    assert_refused(folder, "slice003.dcm", "cut short")
    assert capfd.readouterr().err == ""


def test_a_truncated_jpeg_slice_is_named(tmp_path, real_ct):
    for path in sorted((real_ct / "ricord1a_001012_covid_dicom_jpegll").iterdir())[:3]:
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content if path.name != "1-004.dcm" else content[: len(content) // 2])
    assert_refused(tmp_path, "1-004.dcm", "cut short")


def test_a_single_slice_is_refused(tmp_path, save_series):
    assert_refused(save_series(tmp_path, [0.0]), "is not a volume")


def test_slices_without_position_are_refused(tmp_path, save_dicom):
    for number in range(3):
        save_dicom(tmp_path / f"{number}.dcm", np.zeros((10, 12), np.int16), None)
    assert_refused(tmp_path, "no place")


def test_slices_without_orientation_are_refused(tmp_path, save_series):
    assert_refused(save_series(tmp_path, DEPTHS, ImageOrientationPatient=None), "no place")


def test_colour_pictures_are_refused(tmp_path, save_dicom):
    for number in range(3):
        save_dicom(
            tmp_path / f"{number}.dcm",
            np.zeros((10, 36), np.int16),
            (0, 0, number),
            Columns=12,
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
        )
    assert_refused(tmp_path, "colour")


def test_an_absurd_number_of_rows_is_refused_before_memory_is_taken(tmp_path, save_series):
    assert_refused(save_series(tmp_path, DEPTHS, Rows=9000, Columns=9000), "promises")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_dicom_header_with_any_bytes_changed_is_read_or_refused(tmp_path, save_series, changes):
    path = save_series(tmp_path / "series", DEPTHS) / "slice002.dcm"
    content = bytearray(path.read_bytes())
    header = content.rfind(b"\xe0\x7f\x10\x00") + 12
    for place, value in changes:
        content[132 + int(place * (header - 132))] = value
    path.write_bytes(content)
    try:
        volume = read_ct(path.parent)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert volume.voxels.ndim == 3
        assert np.all(np.isfinite(volume.affine))


def test_real_folders_are_read_with_their_hu(real_ct):
    plain = read_ct(real_ct / "lungdx_a0002_dicom")
    assert plain.voxels.shape == (512, 512, 30)
    assert (plain.voxels.min(), plain.voxels.max()) == (-1024, 1548)
    assert plain.spacing == pytest.approx((0.646484375, 0.646484375, 8.0))
    assert plain.voxels.dtype == np.int16


def test_jpeg_lossless_slices_are_read(real_ct):
    volume = read_ct(real_ct / "ricord1a_001012_covid_dicom_jpegll")
    assert volume.voxels.shape == (512, 512, 124)
    assert (volume.voxels.min(), volume.voxels.max()) == (-3024, 3071)
    assert volume.voxels.dtype == np.int16
