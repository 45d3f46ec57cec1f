"""The export from the panel: CSV and JSON at once, the HTML page and DICOM SR through the worker."""

import json
import types

import pytest
import slicer

from BrgSALib import exports, packages, scan_source

EIGHTEEN = 18


@pytest.fixture
def database(monkeypatch, tmp_path):
    """Slicer's DICOM database with three images, and a function that makes a volume one of DICOM."""
    files = {f"1.2.{n}": str(tmp_path / f"image{n}.dcm") for n in range(3)}
    answers = types.SimpleNamespace(
        fileForInstance=lambda uid: files.get(uid, ""), seriesForFile=lambda file: "1.2.3", files=files
    )
    monkeypatch.setattr(slicer, "dicomDatabase", answers, raising=False)
    answers.claim = lambda volume: volume.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    return answers


def test_scores_are_exported_as_csv_and_json(stub, phantom, host, answers, tmp_path):
    assert not host.ui.exportCsvButton.enabled and "Score a scan first" in host.ui.exportHtmlButton.toolTip
    host.score()
    for suffix, button in (("csv", host.ui.exportCsvButton), ("json", host.ui.exportJsonButton)):
        answers.path = tmp_path / "scores"
        button.click()
        assert (tmp_path / f"scores.{suffix}").exists() and f"scores.{suffix}" in host.status
    assert len(json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["scores"]) == EIGHTEEN
    answers.path = tmp_path / "scores.csv" / "x.csv"
    host.ui.exportCsvButton.click()
    assert "x.csv" in host.status


def test_a_page_is_asked_of_the_worker(faulty, phantom, host, answers, tmp_path):
    faulty("nothing")
    host.score()
    answers.path = tmp_path / "report.html"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: "Written to" in host.status)
    asked = json.loads(answers.path.read_text(encoding="utf-8"))
    assert asked["kind"] == "html" and host.ui.exportHtmlButton.text == "HTML page…"


def test_a_report_can_be_cancelled(faulty, phantom, host, answers, tmp_path):
    faulty("never writes a report")
    host.score()
    answers.path = tmp_path / "report.html"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: "%" in host.status)
    assert host.ui.exportHtmlButton.text == "Cancel"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: host.status == "Cancelled.")
    assert host.ui.exportHtmlButton.text == "HTML page…" and not answers.path.exists()


def test_after_the_worker_has_gone_the_scan_has_to_be_scored_again(faulty, phantom, host, answers, tmp_path):
    faulty("nothing")
    host.score()
    host.logic._session.client.close()
    answers.path = tmp_path / "report.html"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: "Score the scan again" in host.status)


def test_a_version_without_reports_says_so(stub, phantom, host, answers, tmp_path):
    host.score()
    answers.path = tmp_path / "report.html"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: "not available" in host.status)


def test_without_dicom_the_structured_report_is_off_and_says_why(stub, phantom, host, database):
    host.score()
    assert not host.ui.exportSrButton.enabled and "not loaded from DICOM" in host.ui.exportSrButton.toolTip
    database.claim(phantom)
    host.panel.refresh()
    assert host.ui.exportSrButton.enabled and "patient's name" in host.ui.exportSrButton.toolTip
    del database.files["1.2.0"]
    host.panel.refresh()
    assert not host.ui.exportSrButton.enabled and "not in Slicer's DICOM database" in host.ui.exportSrButton.toolTip


def test_a_structured_report_is_asked_for_with_the_files_of_the_series(
    faulty, phantom, host, answers, database, tmp_path
):
    faulty("nothing")
    database.claim(phantom)
    host.score()
    answers.path = tmp_path / "report.dcm"
    host.ui.exportSrButton.click()
    host.pump(lambda: "Written to" in host.status)
    asked = json.loads(answers.path.read_text(encoding="utf-8"))
    assert asked["files"] == list(database.files.values()) and asked["kind"] == "sr"
    del database.files["1.2.2"]
    host.ui.exportSrButton.click()
    assert "1 of 3 DICOM files" in host.status


def test_highdicom_is_offered_where_it_is_missing(
    faulty, phantom, host, answers, database, tmp_path, private_settings, monkeypatch
):
    faulty("nothing")
    database.claim(phantom)
    host.score()
    private_settings.missing.add("highdicom")
    monkeypatch.setattr(private_settings, "decline", True)
    answers.path = tmp_path / "report.dcm"
    host.ui.exportSrButton.click()
    assert "declined" in host.status and not answers.path.exists()
    monkeypatch.setattr(private_settings, "decline", False)
    host.ui.exportSrButton.click()
    host.pump(lambda: "Written to" in host.status)
    assert private_settings.asked[-1][0] == [packages.HIGHDICOM]


def test_the_origin_of_a_volume_is_its_series_or_its_file(phantom, database, tmp_path):
    assert scan_source.origin(phantom) is None
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(tmp_path / "scan.nrrd"))
    phantom.SetAndObserveStorageNodeID(storage.GetID())
    assert scan_source.origin(phantom) == {"path": str(tmp_path / "scan.nrrd")}
    database.claim(phantom)
    assert scan_source.origin(phantom) == {"path": str(tmp_path), "series": "1.2.3"}


@pytest.mark.slow
def test_page_and_structured_report_of_a_real_worker(phantom, host, answers, database, tmp_path):
    """From the panel to files that others read: with the shipped weights, and a series made of the phantom's slices."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    for number, (uid, path) in enumerate(database.files.items()):
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = pydicom.uid.CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = uid
        image.SeriesInstanceUID, image.StudyInstanceUID, image.Modality = "1.2.3", "1.2", "CT"
        image.PatientName, image.PatientID, image.InstanceNumber = "Doe^Jane", "42", number + 1
        image.Rows = image.Columns = 8
        image.PixelSpacing, image.SliceThickness, image.FrameOfReferenceUID = [2.0, 2.0], 3.0, "1.2.4"
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * number]
        image.save_as(path, enforce_file_format=True)
    database.claim(phantom)
    phantom.SetName("Chest <1>")
    host.score()
    answers.path = tmp_path / "report.html"
    host.ui.exportHtmlButton.click()
    host.pump(lambda: "Written to" in host.status)
    page = answers.path.read_text(encoding="utf-8")
    assert page.count("<figure>") == 9 and "Chest &lt;1&gt;" in page and "demonstration" in page
    assert slicer.app.temporaryPath not in page.replace(str(tmp_path), "")
    answers.path = tmp_path / "report.dcm"
    host.ui.exportSrButton.click()
    host.pump(lambda: "report.dcm" in host.status and "Written to" in host.status)
    report = pydicom.dcmread(answers.path)
    assert (report.Modality, report.PatientID, report.StudyInstanceUID) == ("SR", "42", "1.2")


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.json"):
        exports.write(tmp_path / "scores.html", {"scores": [], "case": "x"})
