"""What --out writes: a heat map for every disagreement, the JSON that names it, and a page that is safe to open."""

import json
import struct
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise

import nibabel
import numpy as np
import pytest
from web_page import Page, browse

from brgsa.abnormalities import AbnormalityList
from brgsa.heatmap import heatmaps
from brgsa_training.report_check.check_files import UNNAMED_SHOWN, to_show
from brgsa_training.report_check.page import page
from brgsa_training.report_check.report_check import Verdict

REPORT = "There is a nodule in the lung. No pleural effusion. A pneumothorax is seen. Emphysema cannot be excluded."
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
MADE = datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc)
DISAGREEMENTS = ("report only", "model only")


@pytest.fixture(scope="session")
def listed(tmp_path_factory, scorer, phantoms):
    """Five abnormalities with thresholds that make each verdict, and one without."""
    names = ["Lung nodule", "Pleural effusion", "Emphysema", "Cardiomegaly", "Bronchiectasis", "Consolidation"]
    plain = AbnormalityList.from_names(names)
    scores = scorer.score(phantoms[0][0], plain)
    offsets = (0.01, -0.01, -0.01, 0.01, -0.01)
    thresholds = [scores[name].score + offset for name, offset in zip(names, offsets, strict=False)]
    rows = [replace(row, threshold=value) for row, value in zip(plain, thresholds, strict=False)]
    path = tmp_path_factory.mktemp("list") / "mine.json"
    AbnormalityList("mine", (*rows, plain[5])).write(path)
    return path


@pytest.fixture(scope="session")
def written(tmp_path_factory, listed, phantoms):
    """The folder and the JSON of a check of the first phantom, whose path holds a name."""
    from brgsa_training import cli

    folder = tmp_path_factory.mktemp("Doe_Jane")
    (folder / "scan.nii.gz").write_bytes(phantoms[0][0].read_bytes())
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    files = [str(folder / name) for name in ("scan.nii.gz", "report.txt")]
    options = ["--abnormalities", str(listed), "--device", "cpu", "--out", str(folder / "out"), "--precision", "fp32"]
    assert cli.main(["check-report", *files, *options]) == 0
    return folder / "out", json.loads((folder / "out" / "report-check.json").read_text("utf-8"))


def test_every_disagreement_has_a_heat_map_and_each_agreement_none(written):
    folder, content = written
    rows = {row["name"]: row for row in content["abnormalities"]}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "Lung nodule": "report only",
        "Pleural effusion": "model only",
        "Emphysema": "model only",
        "Cardiomegaly": "neither",
        "Bronchiectasis": "model only",
        "Consolidation": "not calibrated",
        "Pneumothorax": "not calibrated",
    }
    open_rows = {"Consolidation", "Pneumothorax"}
    for name, row in rows.items():
        assert (row["heatmap"] is not None) == (row["verdict"] in DISAGREEMENTS or name in open_rows)
        assert (row["maximum_lps"] is None) == (row["heatmap"] is None)
    maps = {row["heatmap"] for row in rows.values() if row["heatmap"]}
    assert {path.name for path in folder.iterdir()} == {*maps, "report-check.json", "report-check.html"}


def test_a_map_is_that_of_the_library_on_the_scans_own_voxels(written, scorer):
    folder, content = written
    row = next(row for row in content["abnormalities"] if row["name"] == "Lung nodule")
    scan_path = folder.parent / "scan.nii.gz"
    image, scan = nibabel.load(folder / row["heatmap"]), nibabel.load(scan_path)
    assert image.shape == scan.shape and np.allclose(image.affine, scan.affine)
    (heat,) = heatmaps(scorer, scorer.prepare(scan_path), AbnormalityList.from_names(["Lung nodule"]))
    values = image.get_fdata()
    index = np.linalg.inv(image.affine) @ [-row["maximum_lps"][0], -row["maximum_lps"][1], row["maximum_lps"][2], 1]
    assert values[tuple(np.rint(index[:3]).astype(int))] == pytest.approx(1) == values.max()
    assert np.allclose(row["maximum_lps"], heat.maximum_lps, atol=0.01)


def test_without_thresholds_what_is_named_and_the_first_ranks_are_shown(scorer, vocabulary, ct_rate, phantoms):
    from brgsa_training.report_check.reading import findings_by_rules
    from brgsa_training.report_check.report_check import check_report

    findings = findings_by_rules(REPORT, vocabulary)
    check = check_report(scorer, scorer.embed(phantoms[0][0]), findings, ct_rate, vocabulary)
    shown = to_show(check)
    named, others = [row for row in shown if row.named], [row for row in shown if not row.named]
    assert {row.name for row in named} == {"Lung nodule", "Pneumothorax"}
    best = sorted((row for row in check.rows if not row.named), key=lambda row: -row.score)[:UNNAMED_SHOWN]
    assert others == best and all(row.verdict is Verdict.NOT_CALIBRATED for row in shown)


def test_a_folder_that_holds_something_is_refused_before_anything_is_scored(written, listed, run):
    folder, _ = written
    code, _, err = run("check-report", folder.parent / "scan.nii.gz", folder.parent / "report.txt", "--out", folder)
    assert code == 1 and "not empty" in err and "loading weights" not in err


def test_a_scan_that_fails_the_checks_is_compared_by_force_only_and_marked(tmp_path, run, phantoms):
    scan, image = tmp_path / "scan.nii.gz", nibabel.load(phantoms[0][0])
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), scan)
    arguments = ("check-report", scan, phantoms[0][1], "--out", tmp_path / "out")
    code, _, err = run(*arguments)
    assert code == 3 and "refused: values-not-hu" in err and not (tmp_path / "out").exists()
    code, out, _ = run(*arguments, "--force")
    assert code == 0 and "forced: the scan fails the input checks" in out
    assert json.loads((tmp_path / "out" / "report-check.json").read_text())["flags"][0] == "forced"
    assert "forced: these scores mean nothing" in (tmp_path / "out" / "report-check.html").read_text(encoding="utf-8")


def test_a_check_that_fails_leaves_no_folder(tmp_path, run, phantoms):
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    options = ("--out", tmp_path / "out", "--weights", tmp_path / "none")
    assert run("check-report", phantoms[0][0], tmp_path / "report.txt", *options)[0] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]


@pytest.fixture(scope="session")
def text(written):
    return (written[0] / "report-check.html").read_text(encoding="utf-8")


def test_the_page_shows_disagreements_first_with_sentence_and_slices(written, text):
    shown = "".join(Page(text).text)
    places = [
        shown.index(words)
        for words in (
            "Named by the report, not seen by the model",
            "There is a nodule in the lung.",
            "Seen by the model, not named by the report",
            "No pleural effusion.",
            "Not calibrated, named by the report",
            "The whole comparison",
            "Input checks",
        )
    ]
    assert places == sorted(places) and "Not calibrated: 2 abnormalities have no threshold" in shown
    maps = sum(row["heatmap"] is not None for row in written[1]["abnormalities"])
    pictures = [image for image in Page(text).all("img") if "layer" not in image.get("class", "")]
    assert len(pictures) == 3 * maps and "Doe_Jane" not in text


def test_the_page_runs_nothing_and_can_be_walked_by_keyboard(text):
    parsed = Page(text)
    assert not parsed.all("script") and not parsed.all("iframe") and not parsed.all("form")
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    targets = [a["href"][1:] for a in parsed.all("a")] + [label["for"] for label in parsed.all("label")]
    targets += [a["aria-labelledby"] for _, a in parsed.elements if "aria-labelledby" in a]
    assert set(targets) <= set(ids) and len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in parsed.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_text_from_report_list_and_language_model_is_escaped(scorer, vocabulary, phantoms):
    from brgsa_training.report_check.report_check import check_report
    from brgsa_training.summarize.findings import Finding
    from brgsa_training.summarize.scope import Status

    findings = [
        Finding("Emphysema", HOSTILE, Status.PRESENT, HOSTILE),
        Finding(None, HOSTILE, Status.PRESENT, HOSTILE),
    ]
    scan = scorer.prepare(phantoms[0][0])
    names = AbnormalityList(HOSTILE, tuple(AbnormalityList.from_names(["Emphysema", HOSTILE])))
    check = check_report(scorer, scorer.embed(scan), findings, names, vocabulary, backend=HOSTILE)
    hostile = Page(page(replace(check, calibration_set=HOSTILE), {}, scan, {HOSTILE: HOSTILE}, MADE))
    assert not hostile.all("script") and not [image for image in hostile.all("img") if "onerror" in image]
    assert "".join(hostile.text).count("alert(1)") >= 7


def test_a_browser_draws_it_without_a_complaint(text, tmp_path):
    picture = tmp_path / "page.png"
    done = browse(tmp_path, text, f"--screenshot={picture}", "--window-size=1000,1600")
    assert "CONSOLE" not in done.stderr
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1000, 1600) and picture.stat().st_size > 50_000
