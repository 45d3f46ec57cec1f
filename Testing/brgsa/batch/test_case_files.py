"""Heat maps and reports of a batch: what is asked for is written once, beside the scores."""

import json
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pytest

import brgsa
from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.batch.case_files import CaseFiles
from brgsa.batch.score import score_cases
from brgsa.commands.main import main
from brgsa.ct.cases import find_cases
from brgsa.ct.volume import read_ct
from brgsa.errors import UsageError
from brgsa.scoring import Scorer

FOUR = AbnormalityList.from_names(["Lung nodule", "Emphysema", "Pleural effusion", "Hiatal hernia"])
SCHEMA = json.loads((Path(brgsa.__file__).parent / "data" / "scores.schema.json").read_text())


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu", precision="fp32", cache=False)


def record_of(out):
    record = json.loads((out / "cases" / "torso" / "scores.json").read_text())
    jsonschema.validate(record, SCHEMA)
    return record


def run(scorer, path, out, abnormalities=FOUR, heatmaps=(), reports="", method="rollout"):
    files = CaseFiles.parse(list(heatmaps), method, reports, abnormalities)
    return score_cases(scorer, find_cases([path]), abnormalities, out, files=files)


def names(record):
    return [row["abnormality"] for row in record["files"] if row["kind"] == "heatmap"]


def test_named_maps_lie_on_the_scan_and_the_record_lists_them(scorer, torso_path, tmp_path):
    run(scorer, torso_path, tmp_path, heatmaps=["emphysema", "Lung nodule"])
    record = record_of(tmp_path)
    assert names(record) == ["Emphysema", "Lung nodule"]
    for row in record["files"]:
        heat, scan = nibabel.load(tmp_path / "cases" / "torso" / row["path"]), nibabel.load(torso_path)
        assert heat.shape == scan.shape and heat.get_data_dtype() == np.uint8
        np.testing.assert_allclose(heat.affine, scan.affine)
        values = heat.get_fdata()
        assert values.min() >= 0 and values.max() == pytest.approx(1, abs=1e-6)
        ras = np.array(row["maximum_lps"]) * [-1, -1, 1]
        voxel = np.rint(np.linalg.inv(heat.affine) @ [*ras, 1])[:3].astype(int)
        assert values[tuple(voxel)] == pytest.approx(1, abs=1e-6)


def test_the_highest_scores_get_the_maps_of_top_n(scorer, torso_path, tmp_path):
    run(scorer, torso_path, tmp_path, heatmaps=["top:2"])
    record = record_of(tmp_path)
    highest = sorted(record["scores"], key=lambda row: -row["score"])[:2]
    assert names(record) == [row["name"] for row in highest]


def test_all_positive_means_above_the_threshold(scorer, torso_path, tmp_path):
    scores = {row.name: row.score for row in scorer.score(torso_path, FOUR).scores}
    rows = AbnormalityList(
        "mine",
        (
            Abnormality("Lung nodule", threshold=scores["Lung nodule"] + 0.1),
            Abnormality("Emphysema", threshold=scores["Emphysema"] - 0.1),
            Abnormality("Hiatal hernia"),
        ),
    )
    run(scorer, torso_path, tmp_path, rows, heatmaps=["all-positive"])
    assert names(record_of(tmp_path)) == ["Emphysema"]


def test_all_positive_without_any_threshold_is_refused(scorer, torso_path, tmp_path):
    if any(row.positive is not None for row in scorer.score(torso_path, FOUR).scores):
        pytest.skip("the shipped weights are calibrated for these prompts")
    with pytest.raises(UsageError, match="thresholds"):
        run(scorer, torso_path, tmp_path, heatmaps=["all-positive"])


def test_a_rerun_makes_no_file_again_but_makes_what_is_missing_or_new(scorer, torso_path, tmp_path):
    request = {"heatmaps": ["Emphysema"], "reports": "html"}
    run(scorer, torso_path, tmp_path, **request)
    folder = tmp_path / "cases" / "torso"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run(scorer, torso_path, tmp_path, **request).resumed == 1
    assert run(scorer, torso_path, tmp_path).resumed == 1, "scores alone are there already"
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    (folder / "report.html").unlink()
    assert run(scorer, torso_path, tmp_path, **request).done == 1
    assert (folder / "report.html").exists()
    assert run(scorer, torso_path, tmp_path, heatmaps=["Lung nodule"]).done == 1
    assert set(names(record_of(tmp_path))) == {"Emphysema", "Lung nodule"}


def test_a_scan_that_is_not_dicom_gets_everything_but_the_sr(scorer, torso_path, tmp_path, capsys):
    run(scorer, torso_path, tmp_path, reports="html,sr")
    assert [row["kind"] for row in record_of(tmp_path)["files"]] == ["html"]
    assert "torso: no DICOM SR" in capsys.readouterr().err


def test_a_mixed_batch_gets_dicom_files_where_the_scan_is_dicom_and_a_note_elsewhere(
    torso_path, save_dicom, tmp_path, capsys
):
    pytest.importorskip("highdicom")
    series = tmp_path / "series"
    voxels = read_ct(torso_path).voxels  # (X, Y, Z), axes growing Left, Posterior, Superior
    for k in range(voxels.shape[2]):
        place = {"PixelSpacing": [6.0, 6.0], "SliceThickness": 6.0, "InstanceNumber": k + 1}
        save_dicom(series / f"{k}.dcm", voxels[:, :, k].T, (-189.0, -165.0, 6.0 * k), **place)
    out, options = tmp_path / "out", ["--heatmap", "Emphysema", "--heatmap-format", "dicom", "--report", "sr"]
    command = ["score", str(series), str(torso_path), "--out", str(out), "--device", "cpu", *options]
    assert main(command) == 0
    assert "torso: no DICOM SR or heat maps, because the scan is not DICOM" in capsys.readouterr().err
    record = json.loads((out / "cases" / "series" / "scores.json").read_text())
    jsonschema.validate(record, SCHEMA)
    assert {row["path"]: row["kind"] for row in record["files"]} == {
        "heatmap-Emphysema.dcm": "heatmap-dicom",
        "report.dcm": "sr",
    }
    assert record_of(out)["files"] == []
    assert main(command) == 0
    assert "2 were done before" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, part",
    [
        (["--heatmap", "Emphysemo"], "'Emphysemo' is not in the list"),
        (["--heatmap", "top:0"], "'top:0' is not in the list"),
        (["--heatmap", "top:3", "Emphysema"], "stands alone"),
        (["--report", "pdf"], "'pdf' is unknown"),
        (["--heatmap", "top:3", "--heatmap-format", "png"], "'png' is unknown"),
        (["--heatmap-format", "dicom"], "goes with --heatmap"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_read(options, part, tmp_path, capsys):
    assert main(["score", str(tmp_path / "no-scan.nii"), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
