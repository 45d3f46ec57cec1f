"""The input checks: each wrong input gets its own code, and only that one."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brgsa.ct.checks import Finding, check_ct
from brgsa.ct.volume import read_ct

REPOSITORY = Path(__file__).resolve().parents[3]


def codes(findings):
    return {finding.code: finding.severity for finding in findings}


@pytest.fixture
def check(tmp_path, save_nifti):
    """Function (voxels, LPS affine) that checks them as a NIfTI file."""

    def run(voxels, affine):
        return check_ct(read_ct(save_nifti(tmp_path / "scan.nii", voxels, affine)))

    return run


def test_a_whole_chest_in_hu_has_no_findings(check, chest):
    assert check(*chest) == []


def test_a_chest_in_floating_point_has_no_findings(check, chest):
    voxels, affine = chest
    assert check(voxels.astype(np.float32) + np.float32(0.25), affine) == []


def test_findings_do_not_depend_on_the_stored_axis_order(check, chest):
    voxels, affine = chest
    cut = voxels[:, :, 30:]
    turn = np.eye(4)[:, [2, 0, 1, 3]]
    assert check(cut, affine) == check(np.ascontiguousarray(cut.transpose(2, 0, 1)), affine @ turn)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "offset (usually -1024) was not applied"),
        (lambda hu: hu - 1024, "offset (usually -1024) was applied twice"),
        (lambda hu: hu / 1000, "already normalised"),
        (lambda hu: (hu.clip(-1000, 1000) / 1000 - 0.4978) / 0.2449, "already normalised"),
        (lambda hu: (hu.clip(-1000, 1000) + 1000) / 2000, "already normalised"),
        (lambda hu: ((hu.clip(-1000, 1000) + 1000) * 255 / 2000).astype(np.uint8), "grey levels"),
        (lambda hu: hu.astype(np.int16).astype(np.uint16), "unsigned numbers"),
        (lambda hu: hu.clip(-160, 240), "display window"),
        (lambda hu: (hu > -500).astype(np.uint8), "label map"),
        (lambda hu: hu * 0 - 1024, "label map"),
        (lambda hu: hu * 0.5 - 2000, "offset (usually -1024) was applied twice"),
        (lambda hu: hu * 20, "applied twice"),
    ],
    ids=[
        "offset missing",
        "offset twice",
        "thousandths",
        "model input",
        "unit range",
        "bytes",
        "wrapped",
        "windowed",
        "mask",
        "constant",
        "far too low",
        "far too wide",
    ],
)
def test_values_that_are_not_hu_are_flagged_and_nothing_else(check, chest, change, words):
    voxels, affine = chest
    changed = np.asarray(change(voxels.astype(np.float32)))
    findings = check(changed.astype(np.float32) if changed.dtype == np.float64 else changed, affine)
    assert codes(findings) == {"values-not-hu": "error"}
    assert words in findings[0].message


def test_a_body_without_lungs_is_not_a_chest(check, chest):
    voxels, affine = chest
    filled = np.where((voxels < -700) & (voxels > -930), 40, voxels)
    assert codes(check(filled.astype(np.int16), affine)) == {"not-chest": "error"}


def test_gas_in_the_bowel_is_not_taken_for_lungs(check, chest):
    voxels, affine = chest
    lungs = (voxels < -700) & (voxels > -930)
    filled = np.where(lungs, 40, voxels).astype(np.int16)
    filled[60:75, 50:65, 20:80] = -1000
    assert codes(check(filled, affine)) == {"not-chest": "error"}


def test_soft_tissue_without_air_is_not_a_chest(check, chest):
    voxels, affine = chest
    assert codes(check(voxels[60:100, 70:110, :], affine)) == {"not-chest": "error"}


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ((slice(None), slice(None), slice(40, None)), "bottom"),
        ((slice(None), slice(None), slice(None, 60)), "top"),
        ((slice(45, None), slice(None), slice(None)), "right"),
        ((slice(None, 115), slice(None), slice(None)), "left"),
        ((slice(None), slice(40, None), slice(None)), "front"),
        ((slice(None), slice(None, 80), slice(None)), "back"),
    ],
)
def test_lungs_cut_by_any_side_are_flagged_and_nothing_else(check, chest, part, where):
    voxels, affine = chest
    findings = check(voxels[part], affine)
    assert codes(findings) == {"lungs-cut": "error"}
    assert where in findings[0].message


def test_lungs_cut_a_little_at_the_bottom_are_a_warning(check, chest):
    voxels, affine = chest
    assert codes(check(voxels[:, :, 14:], affine)) == {"lungs-cut": "warning"}


@pytest.mark.parametrize("filling", [-3024, -2000, -1024])
def test_a_filling_outside_a_round_field_is_only_mentioned(check, chest, filling):
    voxels, affine = chest
    findings = check(round_field(voxels, 158, filling), affine)
    assert codes(findings) == {"field-of-view-padding": "info"}
    assert f"filled with {filling}" in findings[0].message


def test_a_filling_that_is_not_air_is_a_warning(check, chest):
    voxels, affine = chest
    assert codes(check(round_field(voxels, 158, 0), affine)) == {"field-of-view-padding": "warning"}


def test_a_round_field_that_cuts_the_lungs_is_flagged(check, chest):
    voxels, affine = chest
    findings = codes(check(round_field(voxels, 100, -3024), affine))
    assert findings == {"lungs-cut": "error", "field-of-view-padding": "info"}


def round_field(voxels, radius, filling):
    x, y = ((np.arange(length) - (length - 1) / 2) * 2.0 for length in voxels.shape[:2])
    outside = np.hypot(*np.meshgrid(x, y, indexing="ij")) > radius
    return np.where(outside[..., None], np.int16(filling), voxels)


def test_lungs_outside_the_part_that_the_model_sees_are_flagged(check, chest):
    voxels, affine = chest
    legs = np.concatenate([np.repeat(voxels[:, :, :1], 150, axis=2), voxels], axis=2)
    findings = check(legs, affine)
    assert codes(findings) == {"lungs-off-centre": "error"}
    assert "384 x 384 x 384 mm" in findings[0].message
    fewer = np.concatenate([np.repeat(voxels[:, :, :1], 90, axis=2), voxels], axis=2)
    assert codes(check(fewer, affine)) == {"lungs-off-centre": "warning"}


def test_a_single_lung_is_mentioned(check, chest):
    voxels, affine = chest
    single = voxels.copy()
    left = single[80:]
    left[(left < -700) & (left > -930)] = 30
    assert codes(check(single, affine)) == {"one-lung": "info"}


def test_foam_below_the_patient_is_not_taken_for_lungs(check, chest):
    voxels, affine = chest
    filled = np.where((voxels < -700) & (voxels > -930), 40, voxels)
    filled[:, 112:118] = -900
    assert codes(check(filled.astype(np.int16), affine)) == {"not-chest": "error"}


def test_thick_slices_are_a_warning(check, chest):
    voxels, affine = chest
    assert codes(check(voxels[:, :, ::2], affine @ np.diag([1, 1, 2, 1]))) == {"thick-slices": "warning"}


def test_wide_voxels_are_a_warning(check, chest):
    voxels, affine = chest
    assert codes(check(voxels[::2, ::2], affine @ np.diag([2, 2, 1, 1]))) == {"low-resolution": "warning"}


def test_a_shear_is_a_gantry_tilt(check, chest):
    voxels, affine = chest
    tilted = affine.copy()
    tilted[1, 2] = 3 * np.tan(np.deg2rad(10))
    findings = check(voxels, tilted)
    assert codes(findings) == {"gantry-tilt": "warning"}
    assert "10.0 degrees" in findings[0].message


def test_turned_axes_are_a_warning(check, chest):
    voxels, affine = chest
    for degrees, expected in ((12, {"oblique-axes": "warning"}), (3, {})):
        turn = np.deg2rad(degrees)
        rotation = np.eye(4)
        rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        assert codes(check(voxels, rotation @ affine)) == expected


def test_a_file_without_orientation_is_a_warning(tmp_path, chest):
    import nibabel

    voxels, _ = chest
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(voxels.shape)
    header.set_zooms((2, 2, 3))
    image = nibabel.Nifti1Image(voxels, None, header)
    image.header["qform_code"] = image.header["sform_code"] = 0
    image.to_filename(tmp_path / "scan.nii")
    assert codes(check_ct(read_ct(tmp_path / "scan.nii"))) == {"orientation-unknown": "warning"}


@pytest.fixture
def check_series(tmp_path, save_dicom, chest):
    """Function (slice numbers, **header) that checks a DICOM series of these slices of the chest, in 3 mm steps."""
    voxels, _ = chest

    def run(numbers, shift=lambda number: 0.0, **header):
        for at, number in enumerate(numbers):
            pixels = voxels[:, :, number].T
            position = (-159, -119, 3.0 * number + shift(number))
            save_dicom(tmp_path / f"{at:03}.dcm", pixels, position, **{"PixelSpacing": [2, 2], **header})
        return check_ct(read_ct(tmp_path))

    return run


def test_a_dicom_chest_has_no_findings(check_series):
    assert check_series(range(100)) == []


def test_missing_slices_are_counted(check_series):
    findings = check_series([number for number in range(100) if number not in (40, 41, 70)])
    assert codes(findings) == {"missing-slices": "warning"}
    assert "about 3 of 100 slices are missing (largest gap 9.0 mm, usual step 3.0 mm)" in findings[0].message


def test_many_missing_slices_are_an_error(check_series):
    findings = check_series([number for number in range(100) if not 40 <= number < 60])
    assert codes(findings)["missing-slices"] == "error"


def test_duplicate_slices_are_a_warning(check_series):
    findings = check_series([*range(100), 3, 4])
    assert codes(findings) == {"duplicate-slices": "warning"}
    assert findings[0].message.startswith("2 slices")


def test_uneven_steps_are_a_warning(check_series):
    findings = check_series(range(100), shift=lambda number: 0.6 * (number % 2))
    assert codes(findings) == {"uneven-spacing": "warning"}


def test_thick_slices_with_overlap_are_a_warning(check_series):
    assert codes(check_series(range(100), SliceThickness=8.0)) == {"thick-slices": "warning"}


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_another_modality_is_an_error_and_its_values_are_not_judged(check_series, modality):
    findings = check_series(range(100), Modality=modality)
    assert codes(findings) == {"other-modality": "error"}
    assert modality in findings[0].message


REAL = {
    "cip_ct64.nrrd": {"low-resolution": "warning"},
    "cip_ct64_PSR.nii.gz": {"low-resolution": "warning"},
    "cip_ct64_oblique.nii.gz": {
        "oblique-axes": "warning",
        "low-resolution": "warning",
        "field-of-view-padding": "info",
    },
    "cptac_pda_c3n00249_RPI.nii.gz": {"field-of-view-padding": "info"},
    "pyradiomics_lung1.nrrd": {"lungs-cut": "warning"},
    "lungdx_a0002_dicom": {"thick-slices": "warning"},
    "ricord1a_001012_covid_dicom_jpegll": {"lungs-cut": "warning", "field-of-view-padding": "info"},
    "nonchest_totalseg_abdomen.nii.gz": {"not-chest": "error", "low-resolution": "warning"},
    "totalseg_thoracic_cta_crop.nii.gz": {"lungs-cut": "error"},
    "pyradiomics_lung1_label.nrrd": {"values-not-hu": "error"},
}


@pytest.mark.parametrize("name", REAL)
def test_real_scans_are_judged_rightly(real_ct, name):
    findings = check_ct(read_ct(real_ct / name))
    assert codes(findings) == REAL[name]
    if name.startswith("totalseg_thoracic"):
        assert "right" in findings[0].message
        assert "left" in findings[0].message


def test_every_code_is_documented_and_every_message_is_one_sentence_with_a_cure():
    source = (REPOSITORY / "BrgSAExtension" / "brgsa" / "ct" / "checks.py").read_text(encoding="utf-8")
    page = (REPOSITORY / "docs" / "input-checks.md").read_text(encoding="utf-8")
    import re

    found = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    assert found == listed
    assert Finding("a", "info", "b").message == "b"


REAL_SCANS = {
    "cip_ct64.nrrd": "error",
    "cip_ct64_PSR.nii.gz": "error",
    "cip_ct64_oblique.nii.gz": "error",
    "cptac_pda_c3n00249_RPI.nii.gz": "error",
    "lungdx_a0002_dicom": "error",
    "pyradiomics_lung1.nrrd": "warning",
    "ricord1a_001012_covid_dicom_jpegll": None,  # consolidated bases: the lungs' lower ends are not to be seen
}


@pytest.mark.parametrize(("name", "severity"), REAL_SCANS.items())
def test_a_real_scan_whose_header_puts_the_head_below_the_feet_is_flagged(real_ct, name, severity):
    volume = read_ct(real_ct / name)
    assert "upside-down" not in codes(check_ct(volume))
    assert codes(check_ct(replace(volume, voxels=volume.voxels[:, :, ::-1]))).get("upside-down") == severity


def test_an_upright_scan_that_ends_earlier_is_not_taken_for_one_upside_down(real_ct):
    for name in REAL_SCANS:
        volume = read_ct(real_ct / name)
        slices = volume.voxels.shape[2]
        for low, high in ((0.25, 1.0), (0.0, 0.75), (0.2, 0.8), (0.4, 1.0)):
            part = replace(volume, voxels=volume.voxels[:, :, round(low * slices) : round(high * slices)])
            assert "upside-down" not in codes(check_ct(part)), (name, low, high)


@pytest.mark.parametrize("steps", itertools.product((1, -1), repeat=3))
def test_a_phantom_in_any_orientation_that_its_header_describes_is_upright(check, steps):
    from brgsa_training.phantom.grid import parse_grid
    from brgsa_training.phantom.phantom import make_phantom

    phantom = make_phantom(5, parse_grid("coarse"))
    last = np.array(phantom.voxels.shape) - 1
    turn = np.diag([*steps, 1.0])
    turn[:3, 3] = np.where(np.array(steps) < 0, last, 0)
    turned = phantom.voxels[tuple(slice(None, None, step) for step in steps)]
    assert "upside-down" not in codes(check(np.ascontiguousarray(turned), phantom.grid.affine @ turn))
