"""The section "Report check", driven as a user drives it: a real process reads the report, a worker scores."""

import json
import sys
from pathlib import Path

import module_host
import pytest
import slicer

from brgsa.abnormalities import AbnormalityList
from BrgSALib import launch, report_check_section, scene

REPORT = "There is a nodule in the lung. No pleural effusion. A pneumothorax is seen. Emphysema cannot be excluded."
NAMED = "Patient name: Jane Doe. There is a nodule in the lung."
VERDICT, NAME, SCORE, RANK, SAYS = range(5)


def column(host, number):
    return host.column(number, host.ui.reportTable)


def label(host):
    return host.ui.reportLabel.text


def is_idle(host):
    return host.ui.reportCheckButton.text == "Check report"


def check(host, text=REPORT):
    host.ui.reportTextEdit.setPlainText(text)
    host.ui.reportCheckButton.click()
    host.pump(lambda: is_idle(host))


@pytest.fixture(autouse=True)
def private_temporary_folder(monkeypatch, tmp_path):
    """Keep apart from other programs what the panel writes for its processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(folder))


def temporary():
    return list(Path(slicer.app.temporaryPath).iterdir())


@pytest.fixture
def with_thresholds(host):
    """Half of the list with thresholds that no score exceeds, the rest with thresholds that each score exceeds."""
    rows = host.panel.abnormality_rows
    listed = AbnormalityList.preset("ct-rate-18")
    fields = [{**row.to_dict(), "threshold": 1.5 if n % 4 < 2 else -1.5} for n, row in enumerate(listed)]
    rows.load_json(json.dumps({"name": "mine", "rows": fields}))
    return host


@pytest.fixture
def slow(monkeypatch):
    """Let the reading of reports take an hour."""

    def sleeping(arguments, interpreter, environment):
        usual = launch.report_check_launch(arguments, interpreter, environment)
        return launch.Launch((sys.executable, "-c", "import time; time.sleep(3600)"), usual.environment, usual.folder)

    monkeypatch.setattr(report_check_section, "report_check_launch", sleeping)


def process_of(host):
    return host.panel._report_check._check._check.process


# --- what is needed


def test_the_button_says_what_is_missing(stub, phantom, host):
    button = host.ui.reportCheckButton
    assert not button.enabled and button.toolTip == "Score the scan first."
    host.score()
    assert not button.enabled and button.toolTip == "Paste the report first."
    host.ui.reportTextEdit.setPlainText(" \n ")
    assert not button.enabled
    host.ui.reportTextEdit.setPlainText(REPORT)
    assert button.enabled


# --- verdicts


def test_disagreements_come_first_with_their_sentence(stub, phantom, with_thresholds):
    host = with_thresholds
    host.score()
    check(host)
    verdicts = column(host, VERDICT)
    order = ["report only", "model only", "not calibrated", "both", "neither"]
    assert verdicts == sorted(verdicts, key=order.index) and {"report only", "model only"} < set(verdicts)
    says = dict(zip(column(host, NAME), column(host, SAYS), strict=True))
    assert says["Lung nodule"] == "named: There is a nodule in the lung."
    assert says["Emphysema"] == "in doubt: Emphysema cannot be excluded."
    assert says["Pleural effusion"] == "denied: No pleural effusion." and says["Cardiomegaly"] == "not named"
    assert host.ui.reportTable.item(0, VERDICT).font().bold()
    assert label(host).startswith(f"{verdicts.count('report only')} only in the report, ")
    host.ui.reportTable.selectRow(column(host, NAME).index("Emphysema"))
    shown = host.ui.reportEvidenceLabel.text
    assert "“Emphysema cannot be excluded.”" in shown and "of the list." in shown


def test_the_panel_and_the_command_line_agree(stub, phantom, with_thresholds, tmp_path, capsys):
    from brgsa_training import cli

    host = with_thresholds
    host.score()
    check(host)
    table = dict(zip(column(host, NAME), zip(*(column(host, n) for n in (VERDICT, RANK)), strict=True), strict=True))
    host.panel.abnormality_rows.to_list().write(tmp_path / "mine.json")
    host.panel.abnormality_rows.add(["Pneumothorax"])
    host.pump(lambda: "Pneumothorax" in host.column(0))
    result = scene.read_result(host.parameters.resultTable)
    (tmp_path / "scores.json").write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    files = [str(tmp_path / name) for name in ("scores.json", "report.txt", "mine.json")]
    assert cli.main(["check-report", files[0], files[1], "--abnormalities", files[2], "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["abnormalities"]
    assert table == {row["name"]: (row["verdict"], str(row["rank"])) for row in rows}


def test_what_the_report_names_besides_is_scored_and_the_list_stays_as_it_is(stub, phantom, host):
    host.score()
    before = host.panel.abnormality_rows.to_json(), host.column(0), host.column(1)
    check(host)
    row = column(host, NAME).index("Pneumothorax")
    assert float(column(host, SCORE)[row]) >= 0 and column(host, VERDICT)[row] == "not calibrated"
    assert (host.panel.abnormality_rows.to_json(), host.column(0), host.column(1)) == before
    assert "Not calibrated: 19 abnormalities have no threshold" in label(host)


def test_without_a_warm_worker_what_is_missing_is_said(stub, phantom, host):
    host.score()
    host.logic._session.client.close()
    check(host)
    assert column(host, VERDICT)[0] == "not scored" and column(host, NAME)[0] == "Pneumothorax"
    assert column(host, SCORE)[0] == column(host, RANK)[0] == "" and "1 have no score" in label(host)


def test_a_report_in_another_language_is_not_taken_for_a_normal_one(stub, phantom, host):
    host.score()
    check(host, "Akciğerler normaldir. Plevral sıvı yoktur.")
    assert "names none of these abnormalities. The rules read English only." in label(host)


@pytest.mark.slow
def test_a_real_scan_has_the_verdicts_of_the_command_line(empty_scene, real_ct, real_reports, tmp_path, capsys):
    from brgsa_training import cli

    first = json.loads((real_reports / "ctrate_valid_60.jsonl").read_text("utf-8").splitlines()[0])
    (tmp_path / "report.txt").write_text(f"{first['findings']}\n{first['impression']}", encoding="utf-8")
    path = real_ct / "cptac_pda_c3n00249_RPI.nii.gz"
    rows = [{**row.to_dict(), "threshold": 0.15} for row in AbnormalityList.preset("ct-rate-18")]
    (tmp_path / "mine.json").write_text(
        json.dumps({"version": 1, "name": "mine", "abnormalities": rows}), encoding="utf-8"
    )
    options = ["--abnormalities", str(tmp_path / "mine.json"), "--json"]
    assert cli.main(["check-report", str(path), str(tmp_path / "report.txt"), *options]) == 0
    wanted = {row["name"]: row["verdict"] for row in json.loads(capsys.readouterr().out)["abnormalities"]}
    slicer.util.loadVolume(str(path)).SetName("CT")
    host = module_host.Host()
    host.panel.abnormality_rows.load_json(json.dumps({"name": "mine", "rows": rows}))
    host.score()
    check(host, (tmp_path / "report.txt").read_text("utf-8"))
    assert dict(zip(column(host, NAME), column(host, VERDICT), strict=True)) == wanted
    host.ui.reportTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: host.parameters.heatmap is not None)
    assert column(host, NAME)[0] in host.parameters.heatmap.GetName()
    host.close()


def test_a_double_click_shows_where_the_model_looks_even_for_what_the_list_lacks(
    faulty, phantom, host, tmp_path, monkeypatch
):
    from BrgSALib.volume_file import write_nrrd

    write_nrrd(scene.take_snapshot(phantom), tmp_path / "heat.nrrd", lambda fraction: None)
    monkeypatch.setenv("BRGSA_TEST_HEATMAP", str(tmp_path / "heat.nrrd"))
    faulty("nothing")
    host.score()
    check(host)
    host.ui.reportTable.cellDoubleClicked.emit(column(host, NAME).index("Pneumothorax"), 0)
    host.pump(lambda: host.parameters.heatmap is not None)
    assert "attention for Pneumothorax" in host.parameters.heatmap.GetName()


# --- privacy


def test_a_report_that_names_a_person_is_refused_until_the_box_is_ticked(stub, phantom, host):
    host.score()
    check(host, NAMED)
    assert "seems to hold a name" in label(host) and "tick the box" in label(host) and "--" not in label(host)
    assert host.ui.reportTable.rowCount == 0
    host.ui.reportIdentifiersCheckBox.click()
    host.ui.reportCheckButton.click()
    host.pump(lambda: is_idle(host))
    assert column(host, NAME)
    host.ui.reportTextEdit.setPlainText(NAMED + " ")
    assert not host.ui.reportIdentifiersCheckBox.checked


def test_no_word_of_the_report_is_in_files_arguments_log_or_scene(stub, phantom, host, slow, tmp_path):
    host.score()
    host.ui.reportTextEdit.setPlainText(NAMED)
    host.ui.reportCheckButton.click()
    host.pump(lambda: process_of(host) is not None)
    (folder,) = temporary()
    written = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert "Jane" not in written and "nodule in the lung" not in written and '"scores"' in written
    assert not any("Jane" in argument for argument in process_of(host).args)
    host.ui.reportCheckButton.click()
    host.pump(lambda: is_idle(host))
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Commit()
    assert "Jane" not in host.log + (tmp_path / "scene.mrml").read_text(encoding="utf-8") and not temporary()


# --- cancel, closed scenes, replaced volumes


def test_cancel_ends_the_reading_and_leaves_the_panel_ready(stub, phantom, host, slow):
    host.score()
    host.ui.reportTextEdit.setPlainText(REPORT)
    host.ui.reportCheckButton.click()
    assert host.ui.reportCheckButton.text == "Cancel" and "eading the report" in label(host)
    process = process_of(host)
    host.ui.reportCheckButton.click()
    host.pump(lambda: is_idle(host))
    assert label(host) == "Cancelled."
    assert process.poll() is not None and not temporary() and host.ui.reportCheckButton.enabled


def test_a_scene_closed_while_a_report_is_checked_takes_the_report_along(stub, phantom, host, slow):
    host.score()
    host.ui.reportTextEdit.setPlainText(REPORT)
    host.ui.reportCheckButton.click()
    process = process_of(host)
    slicer.mrmlScene.Clear(0)
    host.pump(lambda: is_idle(host))
    assert label(host) == "The scene was closed." and host.ui.reportTextEdit.plainText == ""
    assert process.poll() is not None and not host.ui.reportCheckButton.enabled


def test_a_volume_removed_while_its_report_is_checked_ends_it(stub, phantom, host, slow):
    host.score()
    host.ui.reportTextEdit.setPlainText(REPORT)
    host.ui.reportCheckButton.click()
    slicer.mrmlScene.RemoveNode(phantom)
    host.pump(lambda: is_idle(host))
    assert label(host) == "The volume was removed while its report was checked."


def test_verdicts_of_voxels_that_were_replaced_are_not_kept(stub, phantom, host):
    host.score()
    host.ui.reportTextEdit.setPlainText(REPORT)
    host.ui.reportCheckButton.click()
    phantom.GetImageData().Modified()
    host.pump(lambda: is_idle(host))
    assert label(host) == "The volume was changed or removed while its report was checked."
    check(host)
    assert column(host, NAME)
    phantom.GetImageData().Modified()
    host.panel.refresh()
    assert column(host, NAME) == [] and label(host) == "No report checked yet."


def test_changed_scores_are_announced_and_a_new_check_is_offered(stub, phantom, host):
    host.score()
    check(host)
    host.panel.abnormality_rows.add(["Rib fracture"])
    host.pump(lambda: "Rib fracture" in host.column(0))
    assert label(host) == "The scores have changed since. Check the report again." and column(host, NAME)
    host.ui.reportCheckButton.click()
    host.pump(lambda: is_idle(host))
    assert "Rib fracture" in column(host, NAME)


def test_leaving_and_entering_the_module_keeps_report_and_verdicts(stub, phantom, host):
    host.score()
    check(host)
    before = column(host, NAME), label(host)
    host.widget.exit()
    host.widget.enter()
    assert (column(host, NAME), label(host)) == before and host.ui.reportTextEdit.plainText == REPORT


# --- faults


def test_a_missing_package_is_named_with_what_to_do(stub, phantom, host, monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "TRAINING_FOLDERS", (tmp_path,))
    host.score()
    check(host)
    assert label(host) == (
        "The report check needs the folder brgsa_training, which is missing from this installation. Install the "
        "extension BrgSA again."
    )
    assert not temporary()


def test_a_process_that_dies_is_a_sentence_without_a_traceback(stub, phantom, host, monkeypatch):
    dying = launch.Launch((sys.executable, "-c", "raise ValueError('Jane')"), {}, "/")
    monkeypatch.setattr(report_check_section, "report_check_launch", lambda *arguments: dying)
    host.score()
    check(host)
    assert "could not be read (the process ended with code 1)" in label(host) and "Jane" not in label(host) + host.log


def test_a_python_that_is_not_there_is_named(stub, phantom, host):
    host.score()
    host.logic.settings.interpreter = "/nowhere/python"
    check(host)
    assert "/nowhere/python: no such Python" in label(host)


def test_a_temporary_folder_that_is_gone_is_named(stub, phantom, host, monkeypatch, tmp_path):
    host.score()
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "gone"))
    check(host)
    assert f"Cannot write to {tmp_path / 'gone'}" in label(host)


def test_a_text_without_words_is_refused(stub, phantom, host):
    host.score()
    check(host, "123 456")
    assert label(host) == "The report holds no text. Give the report as plain text."


def test_both_layouts_of_the_folders_start_the_command(tmp_path, monkeypatch):
    """As installed, both packages lie beside the module; in a checkout, each has a folder of its own."""
    here = launch.report_check_launch(["a.json"], environment={"PYTHONPATH": "/slicer"})
    assert Path(here.folder).name == "BrgSATraining"
    assert here.environment["PYTHONPATH"].split(":") == [str(launch.EXTENSION_FOLDER), "/slicer"]
    (tmp_path / "brgsa_training").mkdir()
    (tmp_path / "brgsa_training" / "__main__.py").touch()
    monkeypatch.setattr(launch, "TRAINING_FOLDERS", (tmp_path, *launch.TRAINING_FOLDERS))
    installed = launch.report_check_launch(["a.json"], sys.executable, {"PYTHONPATH": "/slicer"})
    assert installed.folder == str(tmp_path) and "/slicer" not in installed.environment["PYTHONPATH"].split(":")
    assert installed.args[1:] == ("-m", "brgsa_training", "check-report", "a.json")
