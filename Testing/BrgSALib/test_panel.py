"""The panel, driven as a user drives it, on the stand-in with a worker process of its own."""

import ast
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import module_host
import pytest
import qt
import slicer
from waiting import LONGEST_WAIT

from BrgSALib import exports, scene
from BrgSALib.dialogs import set_clipboard_text

EIGHTEEN = 18
NAME, SCORE = 0, 1


def idle(host):
    return host.ui.scoreButton.text == "Score"


# --- opening


def test_opening_starts_nothing_and_writes_nothing(empty_scene, tmp_path, monkeypatch, private_settings):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path))
    host = module_host.Host()
    assert host.logic._session is None
    assert not list(tmp_path.iterdir()) and not list(Path(os.environ["BRGSA_CACHE"]).iterdir())
    assert not private_settings.asked and not qt.QSettings().allKeys()
    host.close()


def test_without_a_volume_the_button_says_what_is_missing(host):
    assert not host.ui.scoreButton.enabled
    assert host.ui.scoreButton.toolTip == host.ui.inputLabel.text == "Choose a chest CT volume."


def test_the_first_volume_and_the_first_preset_are_chosen(phantom, host):
    assert host.parameters.inputVolume is phantom
    assert host.ui.scoreButton.enabled
    assert host.ui.abnormalityTable.rowCount == EIGHTEEN
    assert "128 × 128 × 64 voxels" in host.ui.inputLabel.text


def test_every_widget_that_the_code_names_is_in_the_ui_file(host):
    import re

    used = set()
    for path in (module_host.EXTENSION / "BrgSALib").glob("*.py"):
        used |= set(re.findall(r"\bui\.(\w+)", path.read_text(encoding="utf-8")))
    assert used and not {name for name in used if not hasattr(host.ui, name)}


# --- from a volume to scores


def test_a_scan_is_scored_and_the_table_sorted(stub, phantom, host):
    host.score()
    assert host.status.startswith("Done in")
    scores = [float(text) for text in host.column(SCORE)]
    assert len(scores) == EIGHTEEN and scores == sorted(scores, reverse=True)
    header = host.ui.resultTable.horizontalHeader()
    header.sectionClicked.emit(NAME)
    assert host.column(NAME) == sorted(host.column(NAME), key=str.casefold)
    header.sectionClicked.emit(NAME)
    assert host.column(NAME) == sorted(host.column(NAME), key=str.casefold, reverse=True)
    assert host.ui.bannerLabel.visible and "stub" in host.ui.bannerLabel.text
    assert host.parameters.resultTable.GetNumberOfRows() == EIGHTEEN
    assert host.parameters.resultChart.GetNumberOfPlotSeriesNodes() == 1


def test_progress_is_a_fraction_with_a_stage_and_the_button_means_cancel(faulty, phantom, host):
    faulty("is slow")
    host.ui.scoreButton.click()
    values = []

    def watch():
        if host.ui.scoreButton.text == "Cancel":
            values.append((host.ui.progressBar.value, host.status))
        return idle(host)

    host.pump(watch)
    fractions = [value for value, _ in values]
    assert fractions == sorted(fractions) and len(set(fractions)) > 10
    assert any("ncoding the scan" in status for _, status in values)
    assert not host.ui.progressBar.textVisible


@pytest.mark.parametrize("calibrated", [False, True])
def test_probability_and_presence_are_shown_where_there_is_a_calibration(phantom, host, calibrated):
    values = (
        {"probability": 0.7, "threshold": 0.2, "positive": True}
        if calibrated
        else dict.fromkeys(("probability", "threshold", "positive"))
    )
    host.panel._results.show([{"name": "Emphysema", "score": 0.3, **values}])
    hidden = [host.ui.resultTable.isColumnHidden(column) for column in (3, 4)]
    assert hidden == [not calibrated, not calibrated]
    if calibrated:
        assert [host.ui.resultTable.item(0, n).text() for n in (3, 4)] == ["70%", "yes"]


def test_rows_without_a_value_come_last_whichever_way_the_table_is_sorted(host):
    none = dict.fromkeys(("probability", "threshold", "positive"))
    rows = [{"name": "a", "score": 0.1, **none}, {"name": "b", "score": 0.2, **none, "probability": 0.5}]
    host.panel._results.show(rows)
    for descending in (True, False):
        host.panel._results.sort(3, descending)
        assert host.column(NAME) == ["b", "a"]


# --- editing


def test_every_button_of_the_editor_does_what_it_says(phantom, host):
    ui, table, rows = host.ui, host.ui.abnormalityTable, host.panel.abnormality_rows
    table.selectRow(0)
    ui.downButton.click()
    assert rows.rows[1].name == "Medical material"
    ui.upButton.click()
    assert rows.rows[0].name == "Medical material"
    ui.duplicateButton.click()
    assert rows.rows[1].name == "Medical material 2"
    ui.removeButton.click()
    assert len(rows) == EIGHTEEN
    set_clipboard_text("Rib fracture\nPneumothorax\tThere is air in the pleural space\nemphysema\n")
    ui.pasteButton.click()
    assert len(rows) == EIGHTEEN + 2 and "2 added. 1 were there already." in ui.abnormalityLabel.text
    ui.undoButton.click()
    assert len(rows) == EIGHTEEN
    ui.addButton.click()
    table.item(EIGHTEEN, 1).setText("  Honey   combing ")
    assert rows.rows[-1].name == "Honey combing" and table.item(EIGHTEEN, 2).text() == "There is Honey combing"
    table.item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert "19 abnormalities, 18 on." in ui.abnormalityLabel.text
    ui.allOnButton.click()
    ui.allOnButton.click()
    assert not ui.scoreButton.enabled and "Switch at least one" in ui.scoreButton.toolTip
    ui.resetListButton.click()
    assert len(rows) == EIGHTEEN and all(row.on for row in rows.rows)


def test_a_wrong_row_is_marked_and_explained(phantom, host):
    host.ui.abnormalityTable.item(2, 1).setText("Emphysema")
    assert "Row 8 is left out" in host.ui.abnormalityLabel.text
    assert "already" in host.ui.abnormalityTable.item(7, 1).toolTip()


def test_a_preset_replaces_the_list_and_undo_brings_it_back(phantom, host):
    combo = host.ui.presetComboBox
    combo.setCurrentIndex(combo.findData("gpt4o-88"))
    combo.activated.emit(combo.currentIndex)
    assert host.ui.abnormalityTable.rowCount == 88
    host.ui.undoButton.click()
    assert host.ui.abnormalityTable.rowCount == EIGHTEEN


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt"])
def test_a_list_is_exported_and_imported_again(phantom, host, answers, tmp_path, suffix):
    answers.path = tmp_path / f"Müller{suffix}"
    host.ui.exportListButton.click()
    assert "Written to" in host.ui.abnormalityLabel.text
    host.panel.abnormality_rows.remove(range(17))
    host.ui.importListButton.click()
    assert host.ui.abnormalityTable.rowCount == EIGHTEEN


def test_a_wrong_list_file_is_explained_and_changes_nothing(phantom, host, answers, tmp_path):
    answers.path = tmp_path / "list.csv"
    answers.path.write_text("nane\nEmphysema\n", encoding="utf-8")
    host.ui.importListButton.click()
    assert 'no column "name"' in host.ui.abnormalityLabel.text
    assert host.ui.abnormalityTable.rowCount == EIGHTEEN


def test_after_scoring_every_edit_updates_the_scores_by_itself(stub, phantom, host):
    host.score()
    table = host.ui.abnormalityTable
    for edit, rows in (
        (lambda: table.item(0, 0).setCheckState(qt.Qt.Unchecked), EIGHTEEN - 1),
        (lambda: table.item(0, 0).setCheckState(qt.Qt.Checked), EIGHTEEN),
        (lambda: host.panel.abnormality_rows.add(["Rib fracture"]), EIGHTEEN + 1),
        (lambda: table.item(1, 2).setText("calcified plaques of the aorta"), EIGHTEEN + 1),
    ):
        before = scene.read_result(host.parameters.resultTable)
        edit()
        host.pump(lambda before=before: scene.read_result(host.parameters.resultTable) != before)
        assert host.ui.resultTable.rowCount == rows
        assert "Scores updated" in host.status


def test_an_edit_while_a_scan_is_scored_counts_in_the_end(faulty, phantom, host):
    faulty("is slow")
    host.ui.scoreButton.click()
    host.pump(lambda: "ncoding" in host.status)
    host.panel.abnormality_rows.add(["Rib fracture"])
    host.pump(lambda: "Rib fracture" in host.column(NAME))


def test_an_edit_when_the_worker_is_gone_asks_for_scoring_again(stub, phantom, host):
    host.score()
    host.logic._session.client.close()
    host.panel.abnormality_rows.add(["Rib fracture"])
    host.pump(lambda: "Press Score" in host.status)
    host.score()
    assert "Rib fracture" in host.column(NAME)


# --- faults


def test_cancel_leaves_the_panel_ready_and_the_worker_alive(faulty, phantom, host, monkeypatch):
    faulty("never ends")
    host.ui.scoreButton.click()
    host.pump(lambda: "ncoding" in host.status)
    client = host.logic._session.client
    monkeypatch.setattr("BrgSALib.panel.DOUBLE_CLICK_SECONDS", 0.0)
    monkeypatch.setattr(client, "_limits", replace(client._limits, cancel=LONGEST_WAIT))  # it is not killed
    host.ui.scoreButton.click()
    host.pump(lambda: idle(host))
    assert host.status == "Cancelled."
    assert host.logic._session.client.running and not list_temporary()
    host.ui.checkButton.click()
    host.pump(lambda: "✓" in host.ui.inputLabel.text)


def list_temporary():
    return list(Path(slicer.app.temporaryPath).glob("brgsa-*/scan.nrrd"))


def test_two_quick_clicks_start_one_scoring_and_do_not_cancel_it(stub, phantom, host, monkeypatch):
    monkeypatch.setattr("BrgSALib.panel.DOUBLE_CLICK_SECONDS", LONGEST_WAIT)
    host.ui.scoreButton.click()
    host.ui.scoreButton.click()
    host.pump(lambda: idle(host))
    assert host.status.startswith("Done in")


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ("prints rubbish", "Done in"),
        ("answers an old request", "Done in"),
        ("dies", "ended by signal 9"),
        ("speaks another version", "version 99"),
    ],
)
def test_a_faulty_worker_costs_a_sentence(faulty, phantom, host, fault, part):
    faulty(fault)
    host.score()
    assert part in host.status
    assert slicer.mrmlScene.GetNodeByID(phantom.GetID()) is phantom and host.ui.scoreButton.enabled


def test_after_a_death_the_next_click_scores(faulty, phantom, host):
    faulty("dies")
    host.score()
    faulty("nothing")
    host.score()
    assert host.status.startswith("Done in")


def test_running_out_of_memory_offers_half_precision_and_then_the_processor(faulty, phantom, host, answers):
    faulty("runs out of memory")
    host.ui.scoreButton.click()
    host.pump(lambda: idle(host) and len(answers.asked) == 2)
    assert "half precision" in answers.asked[0] and "CPU" in answers.asked[1]
    assert (host.logic.settings.precision, host.logic.settings.device) == ("bf16", "cpu")
    assert host.status == "Not enough memory on cuda. Choose precision bf16 or device cpu under Setup."


def test_a_volume_removed_while_it_is_scored_ends_the_scoring(faulty, phantom, host):
    faulty("is slow")
    host.ui.scoreButton.click()
    host.pump(lambda: "ncoding" in host.status)
    slicer.mrmlScene.RemoveNode(phantom)
    host.pump(lambda: idle(host))
    assert host.status == "The volume was removed while it was scored."
    assert not host.ui.scoreButton.enabled


def test_a_scene_closed_while_scoring_leaves_an_empty_panel(faulty, phantom, host):
    faulty("is slow")
    host.ui.scoreButton.click()
    host.pump(lambda: "ncoding" in host.status)
    slicer.mrmlScene.Clear(0)
    host.pump(lambda: idle(host))
    assert host.status == "The scene was closed."
    assert host.ui.resultTable.rowCount == 0 and not slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    module_host.BrgSA.BrgSALogic().makePhantom()
    host.parameters.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    faulty("nothing")
    host.logic.close()
    host.score()
    assert host.status.startswith("Done in")


def test_what_cannot_be_scored_is_refused_in_the_panel_with_the_reason(phantom, host):
    phantom.SetAndObserveImageData(None)
    host.panel.refresh()
    assert not host.ui.scoreButton.enabled and not host.ui.checkButton.enabled
    assert host.ui.scoreButton.toolTip == host.ui.inputLabel.text == scene.volume_problem(phantom)


def test_a_full_disk_is_a_sentence_with_the_folder(stub, phantom, host):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        host.score()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Cannot write the scan to" in host.status and "Free some space" in host.status
    assert not list_temporary()


def test_a_missing_temporary_folder_is_a_sentence(stub, phantom, host, monkeypatch, tmp_path):
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path / "gone"))
    host.score()
    assert "Cannot write the scan to" in host.status


def test_long_and_foreign_paths_and_names_work(stub, phantom, host, monkeypatch, tmp_path, answers):
    folder = tmp_path / "Übung 胸部 – дані" / ("long " * 30)
    folder.mkdir(parents=True)
    monkeypatch.setattr(slicer.app, "temporaryPath", str(folder))
    phantom.SetName("Müller; 胸 <1>")
    host.panel.abnormality_rows.add(["Düne of the lung"])
    host.score()
    assert host.status.startswith("Done in"), host.status
    answers.path = folder / "Ergebnis.csv"
    host.ui.exportCsvButton.click()
    assert answers.path.read_text(encoding="utf-8").splitlines()[1].startswith("Müller; 胸 <1>,")


def test_a_locale_with_decimal_commas_changes_no_number(stub, phantom, host, answers, tmp_path):
    before = qt.QLocale()
    qt.QLocale.setDefault(qt.QLocale("de_DE"))
    try:
        host.score()
        assert all("," not in text and float(text) >= 0 for text in host.column(SCORE))
        answers.path = tmp_path / "scores.csv"
        host.ui.exportCsvButton.click()
        assert answers.path.read_text(encoding="utf-8").splitlines()[1].count(",") == len(exports.COLUMNS) - 1
    finally:
        qt.QLocale.setDefault(before)


# --- setup


@pytest.mark.parametrize(("how", "part"), [("decline", "declined"), ("fail", "exit status 1")])
def test_packages_that_are_not_installed_end_in_a_sentence(stub, phantom, private_settings, how, part):
    private_settings.missing.add("nibabel")
    setattr(private_settings, how, True)
    host = module_host.Host()
    assert "Missing: nibabel" in host.ui.packagesLabel.text
    host.ui.scoreButton.click()
    assert "not installed" in host.status and part in host.status
    assert idle(host) and host.logic._session is None and not host.ui.setupCollapsibleButton.collapsed
    host.close()


def test_packages_are_installed_only_when_asked_and_slicers_own_are_kept(stub, phantom, private_settings):
    private_settings.missing.add("nibabel")
    host = module_host.Host()
    assert not private_settings.asked
    host.score()
    ((requirements, constraints),) = private_settings.asked
    assert any(each.startswith("nibabel") for each in requirements)
    assert "numpy==" in constraints and "SimpleITK==" in constraints
    assert host.status.startswith("Done in")
    host.close()


def test_missing_torch_names_the_extension_that_brings_it(stub, phantom, private_settings):
    private_settings.missing.add("torch")
    host = module_host.Host()
    host.ui.scoreButton.click()
    assert "extension PyTorch in the Extensions Manager" in host.status
    host.close()


def test_a_python_without_packages_is_told_by_its_worker(phantom, host, tmp_path):
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    host.ui.interpreterPathLineEdit.currentPath = str(bare)
    assert "chosen Python" in host.ui.packagesLabel.text
    host.score()
    assert "package numpy is missing" in host.status and "Setup" in host.status


def test_a_python_that_is_not_there_is_named(phantom, host):
    host.ui.interpreterPathLineEdit.currentPath = "/nowhere/python"
    host.score()
    assert "/nowhere/python: no such Python" in host.status


def test_the_python_can_be_emptied_again_and_typing_does_not_stop_the_worker(phantom, host, tmp_path):
    host.score()
    worker = host.logic._session.client.process_id
    for end in range(1, 9):
        host.ui.interpreterPathLineEdit.currentPath = "/no/such/python"[:end]
    assert host.logic._session.client.process_id == worker and host.logic.settings.interpreter == "/no/such"[:8]
    host.ui.interpreterPathLineEdit.currentPath = ""
    assert host.logic.settings.interpreter == ""


def test_a_heat_map_is_no_scan(phantom, host):
    phantom.SetAttribute("BrgSA.Abnormality", "Lung nodule")
    host.panel.refresh()
    assert host.parameters.inputVolume is None and not host.ui.scoreButton.enabled
    with pytest.raises(ValueError, match="This is a heat map"):
        host.logic.process(phantom, "Emphysema")


def test_the_licence_dialog_has_buttons_that_accept_and_decline(host, monkeypatch):
    from BrgSALib.dialogs import Dialogs

    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)

    def answer(button, tick):
        def press():
            (dialog,) = (each for each in qt.QtWidgets.QApplication.topLevelWidgets() if isinstance(each, qt.QDialog))
            dialog.findChild(qt.QCheckBox).setChecked(tick)
            dialog.findChild(qt.QDialogButtonBox).button(button).click()

        qt.QTimer.singleShot(0, press)
        return Dialogs().accept_licence("weights", "the licence", False)

    assert answer(qt.QDialogButtonBox.Ok, True) is True
    assert answer(qt.QDialogButtonBox.Ok, False) is False
    assert answer(qt.QDialogButtonBox.Cancel, True) is False


def test_no_flags_are_given_to_a_constructor():
    """PythonQt passes them as a number, for which it may choose another constructor."""
    for path in (module_host.EXTENSION / "BrgSALib").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr[:1] in "QcC":
                flags = [each for each in call.args if isinstance(each, ast.BinOp) and isinstance(each.op, ast.BitOr)]
                assert not flags, f"{path.name}, line {call.lineno}"


@pytest.fixture
def weights_copy(tmp_path):
    """A copy of the shipped weights, as if the user had brought them."""
    folder = tmp_path / "my-weights"
    shutil.copytree(module_host.EXTENSION / "brgsa" / "data" / "weights" / "phantom", folder)
    return folder


def test_weights_are_used_only_after_their_licence_was_accepted(phantom, host, answers, weights_copy):
    answers.folder, answers.licence = weights_copy, False
    host.ui.chooseWeightsButton.click()
    host.pump(lambda: "not accepted" in host.ui.weightsLabel.text)
    assert answers.asked[0] == (weights_copy / "LICENSE").read_text(encoding="utf-8")
    host.score()
    assert "has not been accepted" in host.status
    host.pump(lambda: len(answers.asked) == 2 and not host.logic._session.client.busy)
    answers.licence = True
    host.ui.licenceButton.click()
    host.pump(lambda: "is accepted" in host.ui.weightsLabel.text)
    assert len(host.logic.settings.accepted_licences) == 1


def test_weights_are_verified_described_and_deleted(phantom, host, answers, weights_copy):
    answers.folder = weights_copy
    host.ui.chooseWeightsButton.click()
    host.pump(lambda: "is accepted" in host.ui.weightsLabel.text)
    host.ui.verifyWeightsButton.click()
    host.pump(lambda: "Every file is whole" in host.ui.weightsLabel.text)
    with (weights_copy / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    host.ui.verifyWeightsButton.click()
    host.pump(lambda: "model.safetensors differs from its checksum" in host.ui.weightsLabel.text)
    host.ui.checkButton.click()  # looks at the part of the scan that these weights see
    host.pump(lambda: "model.safetensors differs from its checksum" in host.ui.inputLabel.text)
    answers.confirm = False
    host.ui.deleteWeightsButton.click()
    assert weights_copy.exists()
    answers.confirm = True
    host.ui.deleteWeightsButton.click()
    host.pump(lambda: "Deleted" in host.ui.weightsLabel.text)
    assert not weights_copy.exists() and host.logic.settings.weights == "phantom"
    assert host.ui.weightsComboBox.count == 1


def test_a_weights_folder_that_was_removed_is_named(phantom, host, answers, weights_copy):
    host.logic.settings.weights = str(weights_copy)
    shutil.rmtree(weights_copy)
    host.score()
    assert "my-weights" in host.status and "neither a folder" in host.status
    assert not host.ui.setupCollapsibleButton.collapsed
    again = module_host.Host()
    assert "is gone" in again.ui.weightsLabel.text
    again.close()


def test_a_bundle_is_imported_and_chosen(phantom, host, answers, tmp_path):
    from brgsa.weights.folder import export_bundle

    answers.path = export_bundle("phantom", tmp_path / "shared.zip")
    answers.folder = tmp_path
    host.ui.importWeightsButton.click()
    host.pump(lambda: host.logic.settings.weights == str(tmp_path / "brgsa-shared"))
    assert (tmp_path / "brgsa-shared" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_in_the_panel(phantom, host, answers, tmp_path):
    answers.path, answers.folder = tmp_path / "best.ckpt", tmp_path
    answers.path.write_bytes(b"no checkpoint")
    (tmp_path / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    host.ui.importWeightsButton.click()
    host.pump(lambda: "best.ckpt" in host.ui.weightsLabel.text and "%" not in host.ui.weightsLabel.text)
    assert host.logic.settings.weights == "phantom" and not (tmp_path / "brgsa-best").exists()


def test_choices_of_the_machine_survive_the_panel(host):
    host.ui.deviceComboBox.setCurrentIndex(host.ui.deviceComboBox.findText("cpu"))
    again = module_host.Host()
    assert again.ui.deviceComboBox.currentText == "cpu" and again.logic.settings.device == "cpu"
    again.close()


def test_a_choice_that_is_no_longer_offered_becomes_the_default(host):
    host.logic.settings.precision = "auto"
    again = module_host.Host()
    assert again.ui.precisionComboBox.currentText == "fp32" and again.logic.settings.precision == "fp32"
    again.close()


@pytest.mark.slow
def test_the_cache_is_cleared_and_the_computer_examined(phantom, host):
    host.ui.clearCacheButton.click()
    host.pump(lambda: "0 embeddings deleted" in host.ui.weightsLabel.text)
    host.ui.doctorButton.click()
    host.pump(lambda: "torch" in host.ui.doctorTextEdit.plainText)
    assert "Python" in host.ui.doctorTextEdit.plainText and host.ui.doctorTextEdit.isVisible()


# --- results


def test_table_and_chart_are_shown_in_the_views(stub, phantom, host):
    host.score()
    host.ui.showTableButton.click()
    host.ui.showChartButton.click()
    assert slicer.app.shown["table"] == host.parameters.resultTable.GetID()
    assert slicer.app.shown["chart"] == host.parameters.resultChart.GetID()
    assert slicer.app.layout_manager.layout == 42


def test_a_saved_scene_shows_list_and_scores_again(stub, phantom, host, tmp_path):
    host.panel.abnormality_rows.edit(0, on=False)
    host.score()
    before = host.column(NAME), host.column(SCORE)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(0)
    assert host.ui.resultTable.rowCount == 0
    slicer.mrmlScene.Connect()
    host.widget.setParameterNode(None)
    host.widget.initializeParameterNode()
    assert (host.column(NAME), host.column(SCORE)) == before
    assert host.panel.abnormality_rows.rows[0].on is False
    assert host.parameters.inputVolume.GetName() == "BrgSAPhantom"


def test_leaving_and_entering_the_module_keeps_the_steps_of_undo(phantom, host):
    host.panel.abnormality_rows.remove([0])
    host.widget.exit()
    host.widget.enter()
    assert host.panel.abnormality_rows.can_undo and host.ui.abnormalityTable.rowCount == EIGHTEEN - 1


def test_the_log_is_copied(stub, phantom, host):
    host.score()
    host.ui.copyLogButton.click()
    assert "started worker" in qt.QApplication.clipboard().text()
    host.ui.clearLogButton.click()
    assert host.log == ""


def test_a_scan_that_fails_the_checks_is_scored_when_the_user_insists(phantom, host, tmp_path):
    slicer.util.arrayFromVolume(phantom)[:] = 0
    slicer.util.arrayFromVolumeModified(phantom)
    button = host.ui.scoreAnywayButton
    assert not button.visible
    host.score()
    assert "Not scored" in host.status and "export the scan in Hounsfield units" in host.status
    assert button.visible and host.parameters.resultTable is None
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(phantom), name="other")
    host.parameters.inputVolume = other
    assert not button.visible
    host.parameters.inputVolume = phantom
    assert button.visible
    button.click()
    assert not button.visible
    host.pump(lambda: idle(host))
    assert host.status.startswith("Done in") and host.ui.resultTable.rowCount == EIGHTEEN
    assert "Scored although the input checks refuse it" in host.ui.resultLabel.text
    assert host.parameters.resultTable.GetAttribute("BrgSA.Flags").startswith("forced values-not-hu")
    exports.write(tmp_path / "scores.csv", scene.read_result(host.parameters.resultTable))
    assert ",forced values-not-hu" in (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[1]
    host.score()  # once more without insisting
    assert "Not scored" in host.status and button.visible


@pytest.mark.slow
def test_a_real_scan_goes_from_file_to_scores_with_the_shipped_weights(empty_scene, real_ct, tmp_path):
    from brgsa.abnormalities import AbnormalityList
    from brgsa.scoring import Scorer

    path = real_ct / "cptac_pda_c3n00249_RPI.nii.gz"
    slicer.util.loadVolume(str(path)).SetName("CT")
    host = module_host.Host()
    host.score()
    assert host.status.startswith("Done in")
    direct = Scorer.from_pretrained("phantom").score(path, AbnormalityList.preset("ct-rate-18"))
    ours = scene.read_result(host.parameters.resultTable)["scores"]
    assert [row["name"] for row in ours] == [row.name for row in direct.scores]
    assert [row["score"] for row in ours] == pytest.approx([row.score for row in direct.scores], abs=1e-5)
    host.ui.resultTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: host.parameters.heatmap is not None)
    heat = slicer.util.arrayFromVolume(host.parameters.heatmap)
    assert heat.shape == slicer.util.arrayFromVolume(host.parameters.inputVolume).shape
    assert heat.min() >= 0 and heat.max() == pytest.approx(1)
    host.ui.abnormalityTable.item(0, 2).setText("a central venous catheter")
    host.pump(lambda: "Scores updated" in host.status)
    host.close()
