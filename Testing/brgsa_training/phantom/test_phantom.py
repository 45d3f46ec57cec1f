"""What a phantom shows, where, and that nothing but its seed decides it."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from brgsa.ct.checks import check_ct
from brgsa.ct.volume import read_ct
from brgsa.errors import UsageError
from brgsa_training.phantom.abnormalities import ABNORMALITIES
from brgsa_training.phantom.generate import write_nifti
from brgsa_training.phantom.grid import Grid, parse_grid
from brgsa_training.phantom.phantom import COARSE, FULL, make_labels, make_phantom, make_report, make_volumes, to_hu
from brgsa_training.phantom.prevalence import labels, prevalences

MEDIUM = Grid((96, 96, 64))
PRESETS = Path(__file__).parents[3] / "BrgSAExtension" / "brgsa" / "data" / "abnormalities"

# Organ in which at least this share of the mask lies, or within this many mm of which it lies.
IN_LUNG = [
    "Lung nodule",
    "Lung mass",
    "Lung opacity",
    "Consolidation",
    "Pneumonia",
    "Lung cyst",
    "Tuberculosis",
    "Emphysema",
    "Mosaic attenuation pattern",
    "Interlobular septal thickening",
    "Pulmonary fibrosis",
    "Pulmonary fibrotic sequela",
    "Atelectasis",
    "Peribronchial thickening",
    "Bronchiectasis",
]
IN_PLEURAL_SPACE = ["Pleural effusion", "Pneumothorax", "Empyema"]
IN_CHEST = ["Hiatal hernia", "Lymphadenopathy", "Pneumomediastinum", "Pericardial effusion"]


def preset_names(name: str) -> list[str]:
    return [row["name"] for row in json.loads((PRESETS / name).read_text())["abnormalities"]]


def share_inside(mask: np.ndarray, organ: np.ndarray) -> float:
    return (mask & organ).sum() / mask.sum()


def grown(mask: np.ndarray, voxels: int) -> np.ndarray:
    return binary_dilation(mask, iterations=voxels)


def test_all_abnormalities_of_ct_rate_and_ten_of_the_long_tail_can_be_shown():
    assert set(preset_names("ct-rate-18.json")) <= set(labels())
    assert len(set(preset_names("ct-rate-lt-15.json")) & set(labels())) >= 10
    assert set(labels()) == set(ABNORMALITIES)


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, second, other = make_phantom(3), make_phantom(3), make_phantom(4)
    assert np.array_equal(first.voxels, second.voxels)
    assert first.report == second.report
    assert first.present == second.present
    assert not np.array_equal(first.voxels, other.voxels)


def test_asking_for_masks_changes_no_voxel():
    assert np.array_equal(make_phantom(8).voxels, make_phantom(8, masks=True).voxels)


def test_the_same_seed_gives_the_same_patient_on_every_grid():
    coarse = make_phantom(21, COARSE, masks=True)
    fine = make_phantom(21, Grid((128, 128, 128)), masks=True)
    assert coarse.report == fine.report
    averaged = fine.voxels.reshape(64, 2, 64, 2, 64, 2).mean((1, 3, 5))
    assert np.corrcoef(averaged.ravel(), coarse.voxels.ravel())[0, 1] > 0.99
    for organ in ("lung", "heart"):
        volume = [p.organs[organ].sum() * np.prod(p.grid.spacing) for p in (coarse, fine)]
        assert volume[0] == pytest.approx(volume[1], rel=0.03)


def test_arrays_for_training_hold_the_phantoms_voxels():
    volumes = make_volumes([5, 6])
    assert volumes.shape == (2, *COARSE.shape)
    assert volumes.dtype == np.uint8
    expected = np.clip(make_phantom(6).voxels, -1000, 1000)
    assert np.abs(to_hu(volumes[1]) - expected).max() <= 4


def test_labels_and_reports_without_voxels_agree_with_the_phantom():
    rows = make_labels(range(40, 44))
    for seed, row in zip(range(40, 44), rows, strict=True):
        phantom = make_phantom(seed)
        assert [name for name, present in zip(labels(), row, strict=True) if present] == list(phantom.present)
        assert make_report(seed) == (phantom.present, phantom.report)


def test_organs_have_the_densities_of_tissue():
    phantom = make_phantom(2, MEDIUM, masks=True, present={})
    lung, heart = phantom.voxels[phantom.organs["lung"]], phantom.voxels[phantom.organs["heart"]]
    assert -900 < np.median(lung) < -800
    assert 100 < np.median(heart) < 240
    assert 100 < np.median(phantom.voxels[phantom.organs["aorta"]]) < 240
    assert np.percentile(phantom.voxels[phantom.organs["bone"]], 90) > 200
    assert np.median(phantom.voxels[:4]) == pytest.approx(-1000, abs=15)
    litres = phantom.organs["lung"].sum() * np.prod(phantom.grid.spacing) / 1e6
    assert 3 < litres < 7


def test_patients_differ_in_size_and_position():
    phantoms = [make_phantom(seed, masks=True, present={}) for seed in range(8)]
    sizes = [p.organs["lung"].sum() for p in phantoms]
    assert np.std(sizes) / np.mean(sizes) > 0.02
    centres = [np.argwhere(p.organs["heart"]).mean(0) for p in phantoms]
    assert (np.std(centres, axis=0) > 0.1).all()


@pytest.mark.parametrize("name", ABNORMALITIES)
def test_an_abnormality_has_a_mask_and_changes_the_voxels_there(name):
    without = make_phantom(31, present={}).voxels.astype(int)
    mild, severe = (make_phantom(31, present={name: severity}, masks=True) for severity in (0.35, 1.0))
    for phantom in (mild, severe):
        assert list(phantom.masks) == [name]
        assert phantom.masks[name].any()
        change = np.abs(phantom.voxels - without)[phantom.masks[name]]
        assert change.mean() > 20
    assert severe.masks[name].sum() >= mild.masks[name].sum()


def test_a_healthy_phantom_has_no_masks():
    assert make_phantom(31, present={}, masks=True).masks == {}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", IN_LUNG)
def test_lesions_of_the_lung_lie_in_the_lung(name, seed):
    phantom = make_phantom(seed, MEDIUM, present={name: 0.7}, masks=True)
    assert share_inside(phantom.masks[name], phantom.organs["lung"]) > 0.97


@pytest.mark.parametrize("name", IN_PLEURAL_SPACE)
def test_lesions_of_the_pleural_space_lie_in_the_chest_and_reach_its_wall(name):
    phantom = make_phantom(1, MEDIUM, present={name: 0.7}, masks=True)
    mask, chest = phantom.masks[name], phantom.organs["chest"]
    assert share_inside(mask, chest) > 0.95
    assert (grown(mask, 2) & ~chest).any()
    assert not (mask & phantom.organs["heart"]).any()


@pytest.mark.parametrize("name", IN_CHEST)
def test_lesions_of_the_mediastinum_lie_in_the_chest(name):
    phantom = make_phantom(1, MEDIUM, present={name: 0.7}, masks=True)
    assert share_inside(phantom.masks[name], phantom.organs["chest"]) > 0.9


@pytest.mark.parametrize(
    ("name", "organ", "voxels"),
    [
        ("Arterial wall calcification", "aorta", 1),
        ("Coronary artery wall calcification", "heart", 2),
        ("Pericardial calcification", "heart", 2),
        ("Osteophyte", "bone", 3),
        ("Rib fracture", "bone", 6),
    ],
)
def test_lesions_on_a_surface_lie_on_their_organ(name, organ, voxels):
    phantom = make_phantom(1, MEDIUM, present={name: 0.7}, masks=True)
    mask = phantom.masks[name]
    assert share_inside(mask, grown(phantom.organs[organ], voxels)) > 0.95
    assert np.percentile(phantom.voxels[mask], 90) > 400


def test_pleural_calcification_lines_the_chest_wall_or_the_diaphragm():
    phantom = make_phantom(1, MEDIUM, present={"Pleural calcification": 0.7}, masks=True)
    mask = phantom.masks["Pleural calcification"]
    assert share_inside(mask, grown(phantom.organs["lung"], 2)) > 0.95
    assert share_inside(mask, phantom.organs["lung"]) < 0.95


def test_cardiomegaly_is_a_larger_heart():
    normal = make_phantom(9, present={}, masks=True).organs["heart"].sum()
    large = make_phantom(9, present={"Cardiomegaly": 0.7}, masks=True)
    assert large.organs["heart"].sum() > 1.6 * normal
    assert np.array_equal(large.masks["Cardiomegaly"], large.organs["heart"])


def test_shares_of_patients_follow_the_table():
    count = 4000
    found = make_labels(range(1_000_000, 1_000_000 + count)).mean(0)
    for share, row in zip(found, prevalences(), strict=True):
        # Four standard errors: one false alarm in about 500 runs over 30 rows, and the seeds are fixed.
        assert abs(share - row.share) < 4 * np.sqrt(row.share * (1 - row.share) / count), row.name


def test_the_table_has_a_long_tail():
    groups = {group: [row.share for row in prevalences() if row.group == group] for group in ("head", "medium", "rare")}
    assert all(len(shares) >= 8 for shares in groups.values())
    assert min(groups["head"]) > max(groups["medium"]) >= min(groups["medium"]) > max(groups["rare"])
    assert min(groups["rare"]) >= 0.03


def test_companions_occur_together_more_often():
    found = make_labels(range(2_000_000, 2_004_000)).astype(bool)
    columns = {name: column for column, name in enumerate(labels())}
    for row in prevalences():
        if row.companion:
            alone, other = found[:, columns[row.name]], found[:, columns[row.companion]]
            assert alone[other].mean() > alone[~other].mean(), row.name


@pytest.mark.parametrize("seed", range(2))
def test_a_full_phantom_passes_the_input_checks(tmp_path, seed):
    phantom = make_phantom(seed, FULL)
    write_nifti(tmp_path / "a.nii.gz", phantom.voxels, phantom.grid)
    findings = check_ct(read_ct(tmp_path / "a.nii.gz"))
    assert [finding for finding in findings if finding.severity != "info"] == []


def test_files_are_read_with_axes_growing_left_posterior_superior(tmp_path):
    phantom = make_phantom(0)
    write_nifti(tmp_path / "a.nii.gz", phantom.voxels, phantom.grid)
    volume = read_ct(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.voxels, phantom.voxels)
    assert np.allclose(volume.affine, phantom.grid.affine)
    assert np.allclose(volume.spacing, phantom.grid.spacing)


def test_the_spine_is_behind_and_the_liver_below_on_the_right():
    phantom = make_phantom(0, present={}, masks=True)
    spine = phantom.voxels[30:34, :, 10:20].max((0, 2))
    assert np.argmax(spine) > 36
    liver, stomach = phantom.voxels[20, 32, 14], phantom.voxels[20, 32, 50]
    assert liver > 50 > -600 > stomach


@pytest.mark.parametrize("text", ["huge", "64,64", "64,64,0", "a,b,c", "64,64,64,64", "9999,64,64", ""])
def test_a_grid_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="--grid"):
        parse_grid(text)


def test_named_grids_share_the_models_field():
    for name in ("coarse", "full", "96,96,48"):
        grid = parse_grid(name)
        assert np.allclose(np.multiply(grid.shape, grid.spacing), 384)
    assert parse_grid("full").spacing == (1.5, 1.5, 3.0)
