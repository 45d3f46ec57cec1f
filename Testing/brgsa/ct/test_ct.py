"""Reading NIfTI, NRRD and MetaImage, the canonical axes, and what happens to bad files."""

import bz2
import gzip
import itertools
import os
import shutil
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its customary name)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brgsa.ct.volume import read_ct
from brgsa.errors import InputError, UsageError

SPACING = (0.8, 1.1, 2.5)


def numbered(shape=(5, 6, 7), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype) - dtype(100)


def upright_affine():
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-10, 20, 30)
    return affine


def nifti(path, voxels=None, slope=None, intercept=None, affine=None, **header):
    """Write a NIfTI file with its header fields as given, even impossible ones."""
    image = nibabel.Nifti1Image(
        numbered() if voxels is None else voxels, upright_affine() if affine is None else affine
    )
    content = bytearray(image.to_bytes())
    raw = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    raw["scl_slope"], raw["scl_inter"] = slope or 0, intercept or 0
    for name, value in header.items():
        raw[name] = value
    content[:348] = raw.binaryblock
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def world_values(voxels, affine, to_lps=None):
    """Map rounded LPS positions to values, independent of axis order."""
    index = np.indices(voxels.shape).reshape(3, -1)
    world = (affine[:3, :3] @ index + affine[:3, 3:]).T
    if to_lps is not None:
        world = world * to_lps
    return {tuple(place): value for place, value in zip(world.round(3) + 0.0, voxels.ravel().tolist(), strict=True)}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1), (1, -1, 1)])
def test_every_stored_axis_order_becomes_left_posterior_superior(tmp_path, order, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, list(order)] * SPACING
    affine[:3, 3] = (3, 4, 5)
    path = nifti(tmp_path / "scan.nii", affine=affine)
    volume = read_ct(path)
    stored = nibabel.load(path)
    assert np.all(np.diag(volume.affine)[:3] > 0)
    assert volume.spacing == pytest.approx(np.diag(volume.affine)[:3])
    expected = world_values(np.asarray(stored.dataobj), stored.affine, to_lps=(-1, -1, 1))
    assert world_values(volume.voxels, volume.affine) == expected
    assert volume.source.stored_axes == "".join(nibabel.aff2axcodes(stored.affine))
    back = volume.to_stored(volume.voxels)
    assert np.array_equal(back, np.asarray(stored.dataobj))
    assert np.shares_memory(back, volume.voxels)
    assert np.allclose(volume.source.stored_affine, np.diag([-1, -1, 1, 1]) @ stored.affine)


def test_a_map_with_channels_goes_back_to_the_stored_axes(tmp_path):
    volume = read_ct(
        nifti(tmp_path / "scan.nii", affine=np.array([[0, 0, -2, 0], [1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1.0]]))
    )
    channels = np.stack([volume.voxels, -volume.voxels], axis=-1)
    assert np.array_equal(volume.to_stored(channels)[..., 1], -volume.to_stored(volume.voxels))


def test_oblique_axes_keep_their_direction(tmp_path):
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine = affine @ upright_affine()
    volume = read_ct(nifti(tmp_path / "scan.nii", affine=np.diag([-1, -1, 1, 1]) @ affine))
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert np.array_equal(volume.voxels, numbered())
    assert volume.spacing == pytest.approx(SPACING, abs=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_agree_with_nibabel(tmp_path, dtype, suffix):
    stored = np.random.default_rng(1).integers(0, 120, (6, 5, 4)).astype(dtype)
    path = nifti(tmp_path / f"scan{suffix}", stored, slope=1, intercept=-50)
    volume = read_ct(path)
    assert volume.voxels.dtype == (np.float32 if np.dtype(dtype).kind == "f" else np.int16)
    assert np.array_equal(volume.to_stored(volume.voxels), nibabel.load(path).get_fdata())
    assert (volume.source.slope, volume.source.intercept) == (1, -50)


def test_a_fractional_slope_is_applied_once(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz", slope=0.5, intercept=-1024)
    volume = read_ct(path)
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.to_stored(volume.voxels), nibabel.load(path).get_fdata())


def test_unsigned_values_that_fit_only_with_their_intercept_stay_int16(tmp_path):
    volume = read_ct(nifti(tmp_path / "scan.nii", np.full((3, 3, 3), 33000, np.uint16), slope=1, intercept=-1024))
    assert volume.voxels.dtype == np.int16
    assert np.all(volume.voxels == 31976)


def test_values_beyond_int16_become_float32(tmp_path):
    volume = read_ct(nifti(tmp_path / "scan.nii", np.full((3, 3, 3), 65000, np.uint16)))
    assert volume.voxels.dtype == np.float32
    assert np.all(volume.voxels == 65000)


def test_big_endian_and_nifti_2_files_are_read(tmp_path):
    big = nibabel.Nifti1Header(endianness="big")
    big.set_data_dtype(">i2")
    nibabel.Nifti1Image(numbered(), upright_affine(), big).to_filename(tmp_path / "big.nii")
    nibabel.Nifti2Image(numbered(), upright_affine()).to_filename(tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        volume = read_ct(tmp_path / name)
        assert volume.voxels.dtype.isnative
        assert np.array_equal(volume.to_stored(volume.voxels), numbered())


def test_a_large_compressed_file_is_read_by_the_second_thread(tmp_path):
    noise = np.random.default_rng(2).integers(-1000, 1000, (160, 160, 160), dtype=np.int16)
    path = nifti(tmp_path / "scan.nii.gz", noise)
    assert path.stat().st_size > 4_000_000
    volume = read_ct(path)
    assert np.array_equal(volume.to_stored(volume.voxels), noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cut short"):
        read_ct(path)


def test_a_trailing_axis_of_length_one_is_dropped_and_said(tmp_path):
    volume = read_ct(nifti(tmp_path / "scan.nii", numbered().reshape(5, 6, 7, 1)))
    assert volume.voxels.shape == (5, 6, 7)
    assert volume.source.messages == ("the 4-D image (5x6x7x1) holds a single volume, which was used",)


def test_units_of_metres_become_mm(tmp_path):
    affine = np.diag([8e-4, 11e-4, 25e-4, 1])
    assert read_ct(nifti(tmp_path / "scan.nii", affine=affine, xyzt_units=1)).spacing == pytest.approx(
        SPACING, rel=1e-5
    )


def test_a_file_without_orientation_says_so(tmp_path):
    assert not read_ct(nifti(tmp_path / "scan.nii", sform_code=0, qform_code=0)).source.orientation_known
    assert read_ct(nifti(tmp_path / "known.nii")).source.orientation_known


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_nrrd_and_metaimage_give_what_nifti_gives(tmp_path, suffix, compress):
    folder = tmp_path / "Röntgen Bilder 胸部"
    folder.mkdir()
    expected = read_ct(nifti(folder / "größe 1.nii.gz", affine=np.diag([-0.8, -1.1, 2.5, 1.0])))
    image = sitk.GetImageFromArray(numbered().transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    path = folder / f"größe 1{suffix}"
    sitk.WriteImage(image, str(path), useCompression=compress)
    volume = read_ct(path)
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.allclose(volume.affine, expected.affine)
    assert volume.source.orientation_known


def test_a_permuted_copy_of_a_real_scan_is_the_same_volume(real_ct):
    original, permuted = read_ct(real_ct / "cip_ct64.nrrd"), read_ct(real_ct / "cip_ct64_PSR.nii.gz")
    assert permuted.source.stored_axes == "PSR"
    assert np.array_equal(original.voxels, permuted.voxels)
    assert np.allclose(original.affine, permuted.affine, atol=1e-3)


def assert_refused(path, *words, error=InputError):
    with pytest.raises(error) as caught:
        read_ct(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message
    return message


def test_a_missing_file_is_named(tmp_path):
    assert_refused(tmp_path / "none.nii.gz", "No such file")


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha", "scan.dcm", "scan"])
def test_an_empty_file_is_named(tmp_path, name):
    (tmp_path / name).touch()
    assert_refused(tmp_path / name, "empty")


@pytest.mark.parametrize(
    "name", ["scan.nii.gz", "scan.nii", "scan.nrrd", "scan.mha", "scan.mhd", "scan.dcm", "scan.txt"]
)
def test_a_text_file_under_an_image_name_is_refused(tmp_path, name):
    (tmp_path / name).write_text("patient,age\n" * 100, encoding="utf-8")
    assert_refused(tmp_path / name, "is not a")


@pytest.mark.parametrize("keep", [10, 200, 600])
def test_a_truncated_gzip_is_refused(tmp_path, keep):
    path = nifti(tmp_path / "scan.nii.gz", np.random.default_rng(0).integers(-1000, 1000, (9, 9, 9), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(path, "cut short")


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF
    path.write_bytes(content)
    assert_refused(path, "damaged")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_truncated_raw_voxels_are_refused_without_a_word_on_stderr(tmp_path, suffix, capfd):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(numbered((20, 20, 20))), str(path))
    path.write_bytes(path.read_bytes()[:9000])
    assert_refused(path, "the header promises")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_truncated_compressed_voxels_are_refused(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=True)
    path.write_bytes(path.read_bytes()[:6000])
    assert_refused(path, "damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_voxels_that_are_no_numbers_are_counted(tmp_path, value, suffix):
    voxels = numbered(dtype=np.float32)
    voxels[1, 2, :3] = value
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    assert_refused(path, "3 of 210 voxels", "replace them")


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_spacing_is_refused(tmp_path, size):
    assert_refused(nifti(tmp_path / "scan.nii.gz", pixdim=[1, 1, size, 1, 0, 0, 0, 0]), "correct the spacing")


@pytest.mark.parametrize("size", ["0", "-1", "nan", "two"])
def test_an_impossible_spacing_in_a_text_header_is_refused(tmp_path, size):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(sitk.GetImageFromArray(numbered()), str(path))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", f"ElementSpacing = 1 {size} 1".encode()))
    assert_refused(path, "spacing")


def test_axes_in_one_plane_are_refused(tmp_path):
    flat = {"srow_x": [1, 0, 1, 0], "srow_y": [0, 1, 1, 0], "srow_z": [0, 0, 0, 0], "sform_code": 1}
    assert_refused(nifti(tmp_path / "scan.nii", **flat), "singular affine")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8,)])
def test_a_flat_image_is_refused(tmp_path, shape):
    assert_refused(nifti(tmp_path / "scan.nii.gz", np.zeros(shape, np.int16)), "is not a volume")


def test_a_flat_nrrd_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image(8, 8, sitk.sitkInt16), str(tmp_path / "scan.nrrd"))
    assert_refused(tmp_path / "scan.nrrd", "is not a volume")


def test_a_series_in_time_is_refused(tmp_path):
    assert_refused(nifti(tmp_path / "scan.nii.gz", np.zeros((4, 4, 4, 3), np.int16)), "has 4 axes", "extract")
    sitk.WriteImage(sitk.Image([4, 4, 4, 3], sitk.sitkInt16), str(tmp_path / "scan.nrrd"))
    assert_refused(tmp_path / "scan.nrrd", "has 4 axes")


def test_colour_is_refused(tmp_path):
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert_refused(nifti(tmp_path / "scan.nii.gz", colour), "colour")
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / "scan.nrrd"))
    assert_refused(tmp_path / "scan.nrrd", "colour")
    assert_refused(nifti(tmp_path / "complex.nii", np.zeros((4, 4, 4), np.complex64)), "complex")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here", encoding="utf-8")
    assert_refused(tmp_path, "no DICOM images")


def test_a_folder_named_like_a_file_is_refused(tmp_path):
    (tmp_path / "scan.nii.gz").mkdir()
    assert_refused(tmp_path / "scan.nii.gz", "no DICOM images")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser can read every file")
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.dcm"])
def test_a_file_without_permission_is_refused(tmp_path, name):
    nifti(tmp_path / "scan.nii").rename(tmp_path / name)
    (tmp_path / name).chmod(0)
    assert_refused(tmp_path / name, "permissions")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_absurd_size_is_refused_before_memory_is_taken(tmp_path, suffix):
    path = nifti(tmp_path / f"scan{suffix}", dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])
    assert peak_memory(lambda: assert_refused(path, "the header promises 2,000,000,000 bytes")) < 20e6


def test_an_absurd_size_in_a_nrrd_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(numbered()), str(path))
    path.write_bytes(path.read_bytes().replace(b"sizes: 7 6 5", b"sizes: 1000 1000 1000"))
    assert_refused(path, "the header promises 2,000,000,000 bytes")


def test_a_header_without_its_voxel_file_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(numbered()), str(tmp_path / "scan.mhd"))
    (tmp_path / "scan.raw").unlink()
    assert_refused(tmp_path / "scan.mhd", "scan.raw", "not there")


def metaimage(path, old="", new=""):
    """Write a MetaImage and replace a part of its header."""
    sitk.WriteImage(sitk.GetImageFromArray(numbered()), str(path))
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("NDims = 3", "NDims = 83"),
        ("NDims = 3", "NDims =83i"),
        ("NDims = 3", "NDims = 99999"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0"),
        ("ObjectType = Image", "ObjectType = Image\nelementdatafile = LOCAL"),
        ("ElementDataFile", "elementdatafile"),
        ("Offset", "Offset = 1 2 3\nOffset"),
        ("CompressedData = False", "CompressedData = perhaps"),
    ],
)
def test_a_metaimage_header_that_crashes_or_fools_native_code_is_refused(tmp_path, old, new, capfd):
    assert_refused(metaimage(tmp_path / "scan.mha", old, new), "damaged MetaImage")
    assert capfd.readouterr().err == ""


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 6 7\nendian: little\n"


def nrrd(path, more="encoding: raw\n", content=None):
    path.write_bytes((NRRD + more + "\n").encode("latin-1") + (raw_voxels() if content is None else content))
    return path


def raw_voxels():
    return numbered().tobytes(order="F")


@pytest.mark.parametrize("length", [1_000, 1_014, 1_020, 100_000])
@pytest.mark.parametrize("line", ["content: {}", "key:={}", "# {}", "labels: {}"])
def test_header_lines_of_any_length_are_read(tmp_path, length, line):
    path = nrrd(tmp_path / "scan.nrrd", f"{line.format('x' * length)}\nencoding: raw\n")
    assert np.array_equal(read_ct(path).voxels, numbered())


def test_a_header_without_end_is_refused(tmp_path):
    assert_refused(nrrd(tmp_path / "scan.nrrd", f"content: {'x' * 300_000}\nencoding: raw\n"), "damaged NRRD")


@pytest.mark.parametrize(
    "more",
    [
        "spacings: 1 2 3\n",
        "SPACINGS: 1 2 3\naxis mins: 5 6 7\n",
        "spacings: 1 2 3\naxis mins: 5 6 7\ncenterings: node node node\n",
        "space: LPS\nspace directions: (1, 0.1, 0) (0, 2.3, 0) (0, 0.7, 3)\nspace origin: (1, 2, 3)\n",
        "space: RAS\nspace directions: (1,0.1,0) (0,2.3,0) (0,0.7,3)\nspace origin: (1,2,3)\n",
        "space: left-anterior-superior\nspace directions: (0,-1.25,0) (1.3,0,0) (0,0,3e0)\nspace origin: (-1,2,3)\n",
        "space dimension: 3\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nmeasurement frame: (1,0,0) (0,1,0) (0,0,1)\n",
        "key:=value: of a: kind\nold min: 0\nkinds: domain domain domain\n",
        "",
    ],
)
def test_the_geometry_of_a_nrrd_is_what_simpleitk_makes_of_it(tmp_path, more):
    path = nrrd(tmp_path / "scan.nrrd", f"{more}encoding: raw\n")
    assert_as_in_simpleitk(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ElementSpacing = 1 1 1", "ElementSize = 1 2 3"),
        ("ElementSpacing = 1 1 1", "ElementSize = 7 7 7\nElementSpacing = 1 2 3"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "Orientation = 0 1 0 -1 0 0 0 0 1"),
        ("Offset = 0 0 0", "Origin = -4 5.5 6"),
        ("BinaryDataByteOrderMSB = False", "ElementByteOrderMSB = True"),
        ("AnatomicalOrientation = RAI", "Patient_Key = a = b"),
    ],
)
def test_the_geometry_of_a_metaimage_is_what_simpleitk_makes_of_it(tmp_path, old, new):
    assert_as_in_simpleitk(metaimage(tmp_path / "scan.mha", old, new))


@pytest.mark.parametrize("kind", ["Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "Float32", "Float64"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_voxels_of_every_type_are_what_simpleitk_makes_of_them(tmp_path, kind, suffix):
    values = np.random.default_rng(3).integers(0, 120, (4, 5, 6)).astype(kind.lower())
    for compressed in (False, True):
        path = tmp_path / f"scan{compressed}{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=compressed)
        assert_as_in_simpleitk(path)


def assert_as_in_simpleitk(path):
    expected, volume = sitk.ReadImage(str(path)), read_ct(path)
    affine = volume.source.stored_affine
    assert np.array_equal(volume.to_stored(volume.voxels).T, sitk.GetArrayFromImage(expected))
    direction = np.reshape(expected.GetDirection(), (3, 3))
    assert np.array_equal(affine[:3, :3], direction * np.array(expected.GetSpacing()))
    assert np.array_equal(affine[:3, 3], expected.GetOrigin())


def test_voxels_of_a_nrrd_may_begin_behind_lines_and_bytes(tmp_path):
    for more, content in (
        ("line skip: 2\nbyte skip: 3\nencoding: raw\n", b"one\ntwo\nabc" + raw_voxels()),
        ("byte skip: -1\nencoding: raw\n", b"anything" + raw_voxels()),
        ("byte skip: 3\nencoding: gzip\n", gzip.compress(b"abc" + raw_voxels())),
        ("encoding: bzip2\n", bz2.compress(raw_voxels())),
        ("# comment\nencoding: RAW\n", raw_voxels()),
    ):
        assert np.array_equal(read_ct(nrrd(tmp_path / "scan.nrrd", more, content)).voxels, numbered())


@pytest.mark.parametrize(
    "more",
    [
        "encoding: raw\nencoding: raw\n",
        "encoding: raw\nspace direction: (1,0,0) (0,1,0) (0,0,1)\n",
        "encoding: raw\nspace directions: (1,0,0) (0,1,0)\n",
        "encoding: raw\nspace directions: (1,0,0) (0,1,0) (0,0,x)\n",
        "encoding: raw\nline skip: 9\n",
        "encoding: gzip\nbyte skip: -1\n",
        "encoding: raw\nkinds: domain\n",
    ],
)
def test_a_nrrd_header_that_makes_no_sense_is_refused(tmp_path, more):
    assert_refused(nrrd(tmp_path / "scan.nrrd", more), "damaged NRRD")


@pytest.mark.parametrize(
    "name", ["../ok.raw", "/etc/passwd", "C:\\ok.raw", "..\\ok.raw", "sub/../../ok.raw", "\\\\host\\a"]
)
def test_voxels_outside_the_folder_of_the_header_are_refused(tmp_path, name):
    (tmp_path / "ok.raw").write_bytes(raw_voxels())
    folder = tmp_path / "scan"
    folder.mkdir()
    assert_refused(nrrd(folder / "scan.nhdr", f"encoding: raw\ndata file: {name}\n"), "outside its own folder")
    header = metaimage(folder / "scan.mha", "ElementDataFile = LOCAL", f"ElementDataFile = {name}")
    assert_refused(header, "outside its own folder")


def test_a_pair_of_the_writers_own_does_not_name_the_voxels(tmp_path):
    (tmp_path / "ok.raw").write_bytes(raw_voxels())
    more = "encoding: raw\ndata file: ../secret\ndata file:=ok.raw\n"
    assert_refused(nrrd(tmp_path / "scan.nhdr", more), "outside its own folder")


@pytest.mark.parametrize("name", ["scan.%03d.raw 1 9 1", "LIST"])
def test_voxels_in_a_list_of_files_are_refused(tmp_path, name):
    assert_refused(nrrd(tmp_path / "scan.nhdr", f"encoding: raw\ndata file: {name}\n"), "list of files")
    assert_refused(metaimage(tmp_path / "scan.mha", "LOCAL", name), "list of files")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["pipe", "pipe.nii.gz", "pipe.nrrd", "pipe.mha", "pipe.dcm"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert_refused(tmp_path / name, "pipe or a device")
    (tmp_path / "folder.raw").mkdir()
    for data in (name, "folder.raw"):
        assert_refused(nrrd(tmp_path / "scan.nhdr", f"encoding: raw\ndata file: {data}\n"), data, "not there")
        assert_refused(metaimage(tmp_path / "scan.mha", "LOCAL", data), data, "not there")


@pytest.mark.parametrize("encoding", ["hex", "ascii", "zip", ""])
def test_other_encodings_are_refused(tmp_path, encoding):
    assert_refused(nrrd(tmp_path / "scan.nrrd", f"encoding: {encoding}\n"), "encoding")


def test_more_voxels_than_any_ct_has_are_refused(tmp_path):
    for path in (
        nifti(tmp_path / "scan.nii.gz", dim=[3, 1001, 1000, 1000, 1, 1, 1, 1]),
        nrrd(tmp_path / "scan.nrrd", "encoding: raw\n"),
        metaimage(tmp_path / "scan.mha", "DimSize = 7 6 5", "DimSize = 1001 1000 1000"),
    ):
        path.write_bytes(path.read_bytes().replace(b"sizes: 5 6 7", b"sizes: 1001 1000 1000"))
        assert_refused(path, "1,001,000,000 voxels")


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_memory_while_reading_is_four_bytes_a_voxel_whatever_the_type(tmp_path, dtype, suffix):
    voxels = np.zeros((200, 200, 300), dtype)
    voxels[-1, -1, -1] = 100_000 if voxels.itemsize > 2 else 32_767
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), useCompression=True)
    assert path.stat().st_size < 1e6
    # What is read at a time comes on top.
    assert peak_memory(lambda: read_ct(path)) < 4 * voxels.size + 30e6


def test_half_of_a_pair_is_refused(tmp_path):
    assert_refused(nifti(tmp_path / "scan.nii", magic=b"ni1\0"), ".hdr/.img")


def test_a_series_for_a_file_that_is_not_dicom_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="DICOM only"):
        read_ct(nifti(tmp_path / "scan.nii"), series="1.2.3")


def peak_memory(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_sane_or_refused(path):
    """A reader gives a usable volume, or one line about the file."""
    try:
        volume = read_ct(path)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        return
    assert volume.voxels.ndim == 3
    assert volume.voxels.dtype in (np.int16, np.float32)
    assert np.all(np.isfinite(volume.voxels))
    assert np.all(np.isfinite(volume.affine))
    assert min(volume.spacing) > 0
    assert volume.to_stored(volume.voxels).shape == volume.source.stored_shape


MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHANGES = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6)


@MANY
@given(changes=CHANGES, compressed=st.booleans())
def test_a_nifti_header_with_any_bytes_changed_is_read_or_refused(tmp_path, changes, compressed):
    content = bytearray(nifti(tmp_path / "base.nii").read_bytes())
    for place, value in changes:
        content[place] = value
    path = tmp_path / ("scan.nii.gz" if compressed else "scan.nii")
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    assert peak_memory(lambda: assert_sane_or_refused(path)) < 50e6


@MANY
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(list(b"0123456789-. :()\nabneix%#=/"))),
        min_size=1,
        max_size=4,
    ),
    suffix=st.sampled_from([".nrrd", ".mha"]),
)
def test_a_text_header_with_any_characters_changed_is_read_or_refused(tmp_path, changes, suffix):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(numbered()), str(path))
    content = bytearray(path.read_bytes())
    header = len(content) - numbered().nbytes
    for place, value in changes:
        content[int(place * header)] = value
    path.write_bytes(content)
    assert peak_memory(lambda: assert_sane_or_refused(path)) < 50e6


def test_a_copy_under_another_extension_is_known_by_its_content(tmp_path):
    nifti(tmp_path / "scan.nii.gz")
    shutil.copy(tmp_path / "scan.nii.gz", tmp_path / "scan.nii")
    assert np.array_equal(read_ct(tmp_path / "scan.nii").voxels, read_ct(tmp_path / "scan.nii.gz").voxels)
