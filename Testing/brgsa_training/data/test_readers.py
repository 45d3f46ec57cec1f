"""Scans of the data sets are read as they are meant to be."""

import nibabel as nib
import numpy as np
import pytest

from brgsa.errors import InputError
from brgsa.preprocess import PreprocessingPlan, rescale_reference, to_grid
from brgsa_training.data.ct_rate import list_ct_rate, needs_rescaling
from brgsa_training.data.folder import list_folder
from brgsa_training.data.rad_chestct import list_rad_chestct

HEADER = "VolumeName,XYSpacing,ZSpacing,RescaleSlope,RescaleIntercept\n"


def chest(shape=(24, 20, 16), seed=0):
    """HU with the shares of air, lung and soft tissue that a chest CT has."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape, 40.0)
    hu[:6], hu[8:14, 4:14] = -1000, -850
    hu[20:, 8:10] = 700
    return np.rint(hu + rng.normal(0, 20, shape)).clip(-1024, 3000).astype(np.int16)


def save(path, voxels, spacing=(0.7, 0.7, 1.5), axes=(-1, -1, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([*(np.array(axes) * spacing), 1.0])), path)


@pytest.fixture
def ct_rate(tmp_path):
    """Two studies of one patient: raw values as in the first version, and HU as in the second."""
    hu = chest()
    save(tmp_path / "train_1" / "train_1_a" / "train_1_a_1.nii.gz", hu + 1024)
    save(tmp_path / "train_1" / "train_1_a" / "train_1_a_2.nii.gz", (hu.astype(np.int32) + 8192).astype(np.int16))
    save(tmp_path / "train_1" / "train_1_b" / "train_1_b_1.nii.gz", hu)
    table = tmp_path / "metadata.csv"
    table.write_text(
        HEADER
        + 'train_1_a_1.nii.gz,"[0.75, 0.75]",2.0,1,-1024\n'
        + 'train_1_a_2.nii.gz,"[0.75, 0.75]",2.0,1,-8192\n'
        + 'train_1_b_1.nii.gz,"[0.75, 0.75]",2.0,1,-8192\n'
    )
    return tmp_path, table, hu


@pytest.mark.parametrize("fidelity", ["exact", "reference"])
def test_ct_rate_files_are_rescaled_once_whatever_their_version(ct_rate, fidelity):
    root, table, hu = ct_rate
    scans = list_ct_rate(table, root)
    assert [(scan.case, scan.study, scan.patient) for scan in scans] == [
        ("train_1_a_1", "train_1_a", "train_1"),
        ("train_1_a_2", "train_1_a", "train_1"),
        ("train_1_b_1", "train_1_b", "train_1"),
    ]
    notes = []
    for scan in scans:
        volume, note = scan.read(fidelity)
        np.testing.assert_array_equal(volume.voxels, hu)
        assert volume.spacing == (0.75, 0.75, 2.0)  # of the table, not of the header
        notes.append(note)
    assert "applied" in notes[0] and "-8192 of the table applied" in notes[1] and "already in HU" in notes[2]


def test_ct_rate_reference_rescaling_keeps_the_pixel_type_and_cuts_the_slope():
    raw = (chest() + 1024).astype(np.int16)
    assert rescale_reference(raw, 1.5, -1024.0).dtype == np.int16
    np.testing.assert_array_equal(rescale_reference(raw, 1.5, -1024.0), raw - 1024)


def test_ct_rate_volumes_stay_in_the_order_of_their_file(ct_rate, tmp_path):
    root, table, hu = ct_rate
    save(root / "train_1" / "train_1_b" / "train_1_b_1.nii.gz", hu, axes=(1, -1, 1))
    volume, note = list_ct_rate(table, root)[2].read("exact")
    np.testing.assert_array_equal(volume.voxels, hu)
    assert "axes grow RPS" in note


def test_the_same_chest_gives_the_same_grid_from_every_version(ct_rate):
    root, table, _ = ct_rate
    plan = PreprocessingPlan(shape=(16, 16, 8))
    grids = [to_grid(scan.read("reference")[0], plan, "reference")[0] for scan in list_ct_rate(table, root)]
    for grid in grids[1:]:
        np.testing.assert_array_equal(grid, grids[0])


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (1, -8192), (0.5, -1024), (1, 0)])
def test_the_decision_about_rescaling_is_right_for_raw_values_and_for_hu(slope, intercept):
    hu = chest().astype(np.float32)
    assert needs_rescaling((hu - intercept) / slope, slope, intercept)[0] == ((slope, intercept) != (1, 0))
    assert not needs_rescaling(hu, slope, intercept)[0]


def test_values_that_are_hu_under_no_reading_are_refused():
    with pytest.raises(InputError, match="neither the stored values nor those after slope 1 and intercept -1024"):
        needs_rescaling(np.full((8, 8, 8), 9000, np.int16), 1, -1024, "scan.nii.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("VolumeName,XYSpacing\n", "has no column named ZSpacing"),
        (HEADER, "has no rows"),
        (HEADER + "scan.nii.gz,0.7,1,1,0\n", "line 2 has the volume name 'scan.nii.gz'"),
        (HEADER + "../../etc_1_a_1.nii.gz,0.7,1,1,0\n", "line 2 has the volume name"),
        (HEADER + "train_1_a_1.nii.gz,wide,1,1,0\n", "line 2 has no numbers"),
        (HEADER + "train_1_a_1.nii.gz,0.7,0,1,0\n", "line 2 has a voxel size"),
        (HEADER + "train_1_a_1.nii.gz,0.7,1,1,0\ntrain_1_a_2.nii.gz\n", "row 3 has another number of cells"),
        (HEADER + "train_1_a_1.nii.gz,0.7,0.7,1,1,0\n", "row 2 has another number of cells"),
    ],
)
def test_a_metadata_table_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        list_ct_rate(tmp_path / "t.csv", tmp_path)
    assert "\n" not in str(caught.value)


def test_rad_chestct_slices_are_reversed_on_a_grid_of_0_8_mm(tmp_path):
    slices = np.random.default_rng(0).integers(-1000, 1000, (7, 5, 6)).astype(np.int16)  # (slices, rows, columns)
    np.savez(tmp_path / "tst00001.npz", ct=slices)
    (scan,) = list_rad_chestct(tmp_path)
    volume, _ = scan.read("reference")
    assert (scan.case, volume.spacing, volume.voxels.shape) == ("tst00001", (0.8, 0.8, 0.8), (6, 5, 7))
    assert volume.voxels[2, 3, 0] == slices[-1, 3, 2] and volume.voxels[5, 0, 6] == slices[0, 0, 5]


def test_bad_rad_chestct_files_are_named_in_one_line(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 not a whole archive")
    np.savez(tmp_path / "other.npz", volume=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", ct=np.array([{}], object))
    for scan in list_rad_chestct(tmp_path):
        with pytest.raises(InputError, match=str(scan.path)) as caught:
            scan.read("exact")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds no"):
        list_rad_chestct(tmp_path / "nowhere")


def test_a_plain_folder_takes_its_studies_from_a_table(tmp_path):
    save(tmp_path / "scans" / "a1.nii.gz", chest())
    save(tmp_path / "scans" / "a2.nii.gz", chest())
    save(tmp_path / "scans" / "b.nii.gz", chest())
    (tmp_path / "studies.csv").write_text("case,study,patient\na1,a,p\na2,a,p\n")
    scans = list_folder([tmp_path / "scans"], tmp_path / "studies.csv")
    assert [(scan.case, scan.study, scan.patient) for scan in scans] == [("a1", "a", "p"), ("a2", "a", "p"), ("b",) * 3]
    volume, _ = scans[0].read("exact")
    np.testing.assert_array_equal(volume.voxels, chest())


def test_ct_rate_files_may_lie_side_by_side(ct_rate, tmp_path):
    _, table, hu = ct_rate
    flat = tmp_path / "flat"
    save(flat / "train_1_b_1.nii.gz", hu)
    scan = list_ct_rate(table, flat)[2]
    np.testing.assert_array_equal(scan.read("exact")[0].voxels, hu)
