"""The DICOM SR: valid for other readers, faithful to the scores, in the patient's study."""

import json
import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.ct.checks import Finding
from brgsa.ct.volume import read_ct
from brgsa.errors import InputError
from brgsa.report.dicom_source import SCHEME
from brgsa.report.sr import TITLE, write_sr
from brgsa.scoring import AbnormalityScore

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
ROWS = (
    AbnormalityScore("Pleural effusion", 0.1234567, 0.8, 0.1, True),
    AbnormalityScore("Emphysema", -0.05, None, 0.02, False),
    AbnormalityScore("Something of mine, its name far longer than the sixty-four characters of a meaning", 0.0),
)


@pytest.fixture(scope="module")
def rows():
    codes = {each.name: each.codes for each in AbnormalityList.preset("ct-rate-18")}
    return AbnormalityList("mine", tuple(Abnormality(row.name, codes=codes.get(row.name, {})) for row in ROWS))


@pytest.fixture(scope="module")
def report(scored, rows, save_series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sr")
    source = read_ct(save_series(folder / "series", range(0, 30, 3))).source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_sr(folder / "report.dcm", replace(scored.scores, scores=ROWS), rows, source)
    return folder / "report.dcm"


@pytest.fixture(scope="module")
def groups(report):
    """The measurement groups as highdicom reads them back."""
    from highdicom.sr import srread

    return srread(report).content.get_image_measurement_groups()


def test_another_library_reads_the_same_scores(groups):
    found = [(group.tracking_identifier, group.get_measurements()) for group in groups]
    assert [name for name, _ in found] == [row.name[:64] for row in ROWS]
    values = [{m.name.value: m.value for m in measurements} for _, measurements in found]
    assert values[0] == {"score": pytest.approx(0.123457), "probability": 0.8, "threshold": 0.1}
    assert values[1] == {"score": -0.05, "threshold": 0.02}
    assert values[2] == {"score": 0.0}
    answers = [[e.value.meaning for e in group.get_qualitative_evaluations()] for group in groups]
    assert answers == [["Yes"], ["No"], []]


def test_an_abnormality_has_a_public_code_only_where_one_means_exactly_it(groups, rows):
    for group, row in zip(groups, rows, strict=True):
        exact = {
            ("SCT" if system == "snomed" else "RADLEX", code["id"])
            for system, code in row.codes.items()
            if system in ("snomed", "radlex") and code.get("match", "exact") == "exact"
        }
        found = (group.finding_type.scheme_designator, group.finding_type.value)
        assert found in exact if exact else found[0] == SCHEME
    assert groups[2].finding_type.scheme_designator == SCHEME


def test_it_lies_in_the_patients_study_and_refers_to_every_image(report):
    document = pydicom.dcmread(report)
    source = sorted((report.parent / "series").iterdir())
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in source]
    assert (document.PatientName, document.PatientID) == ("Doe^Jane", "SECRET-42")
    assert document.StudyInstanceUID == images[0].StudyInstanceUID
    assert document.SeriesInstanceUID != images[0].SeriesInstanceUID
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence} == {
        image.SOPInstanceUID for image in images
    }


def test_the_title_says_research_and_nobody_has_verified_it(report, scored):
    document = pydicom.dcmread(report)
    assert document.ConceptNameCodeSequence[0].CodeMeaning == TITLE and "research use only" in TITLE
    assert "research use only" in document.SeriesDescription
    assert document.VerificationFlag == "UNVERIFIED"
    if scored.scores.notice:
        assert scored.scores.notice.split(":")[0] in document.SeriesDescription
        assert scored.scores.notice in json.dumps(document.to_json_dict(), ensure_ascii=False)


def test_dcmtk_accepts_it(report):
    if not shutil.which("dsrdump"):
        pytest.skip("dcmtk is not installed")
    done = subprocess.run(["dsrdump", "-Ec", str(report)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    assert TITLE in done.stdout and '"Similarity of image and text")="0.123457"' in done.stdout


def test_a_scan_that_is_not_dicom_is_refused_in_one_line(scored, rows, tmp_path):
    with pytest.raises(InputError, match="needs a DICOM series"):
        write_sr(tmp_path / "report.dcm", scored.scores, rows, scored.scan.volume.source)
    assert not list(tmp_path.iterdir())


def test_a_series_whose_header_lacks_what_the_standard_asks_for_is_refused_in_one_line(
    scored, rows, save_series, tmp_path
):
    pydicom = pytest.importorskip("pydicom")
    files = sorted(Path(save_series(tmp_path / "series", range(0, 9, 3))).iterdir())
    for file in files:
        image = pydicom.dcmread(file)
        del image.PixelSpacing
        image.save_as(file)
    with pytest.raises(InputError, match="has no PixelSpacing, which a DICOM SR needs"):
        write_sr(tmp_path / "report.dcm", replace(scored.scores, scores=ROWS), rows, files)
    assert not (tmp_path / "report.dcm").exists()


def test_a_forced_scan_is_marked_in_the_report(scored, rows, save_series, tmp_path):
    source = read_ct(save_series(tmp_path / "series", range(0, 30, 3))).source
    finding = Finding("not-chest", "error", "found no lung.")
    write_sr(tmp_path / "report.dcm", replace(scored.scores, scores=ROWS, findings=(finding,)), rows, source)
    document = pydicom.dcmread(tmp_path / "report.dcm")
    assert document.SeriesDescription.startswith("Forced: ")
    parameters = [str(element.value) for element in document.iterall()]
    assert any(text.startswith("flags=forced not-chest") for text in parameters)
