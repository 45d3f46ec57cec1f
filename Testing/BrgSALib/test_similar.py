"""The section "Similar cases", with the real worker and the shipped weights where something is searched."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import slicer

from BrgSALib import scene, views
from BrgSALib.volume_file import write_nrrd

RANK, CASE, SCORE, NOTE = range(4)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """An index of three small scans, the scan "own" among them."""
    from brgsa.batch.index import index_cases
    from brgsa.ct.cases import find_cases
    from brgsa.scoring import Scorer

    folder = tmp_path_factory.mktemp("cases")
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (64, 56, 60)), indexing="ij")
    hu = np.where(x**2 + y**2 < 0.9, 30, -1000)
    hu[((abs(x) - 0.45) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
    for number, name in enumerate(("own", "case1", "case2")):
        voxels = hu + np.random.default_rng(number).normal(0, 20 + 20 * number, hu.shape)
        image = nibabel.Nifti1Image(voxels.round().astype(np.int16), np.diag([-6.0, -6.0, 6.0, 1.0]))
        nibabel.save(image, folder / f"{name}.nii.gz")
    scorer = Scorer.from_pretrained("phantom", device="cpu", cache=False)
    index_cases(scorer, find_cases([folder]), folder.parent / f"{folder.name}-index")
    return folder.parent / f"{folder.name}-index"


@pytest.fixture
def scans(index):
    return index.parent / index.name.removesuffix("-index")


def said(host):
    return host.ui.similarLabel.text


def wait(host, part):
    host.pump(lambda: part in said(host))


def test_the_buttons_say_what_is_missing(phantom, host, tmp_path):
    assert (
        not host.ui.similarScanButton.enabled and "Choose the folder of an index" in host.ui.similarScanButton.toolTip
    )
    host.ui.indexLineEdit.text = "some/index"  # the worker would look for it in its own working folder
    assert not host.ui.updateIndexButton.enabled and "Write the whole path" in host.ui.updateIndexButton.toolTip
    host.ui.indexLineEdit.text = str(tmp_path / "index")
    assert host.ui.similarScanButton.enabled and host.ui.updateIndexButton.enabled
    assert not host.ui.similarWordsButton.enabled and "Write a phrase" in host.ui.similarWordsButton.toolTip
    host.ui.wordsLineEdit.text = "There is a pleural effusion"
    assert host.ui.similarWordsButton.enabled
    assert not host.ui.loadBesideButton.enabled and not host.ui.oneScanButton.enabled
    assert host.logic._session is None


def test_the_folder_of_the_index_is_remembered(host, answers, tmp_path):
    answers.folder = tmp_path
    host.ui.chooseIndexButton.click()
    assert host.ui.indexLineEdit.text == host.logic.settings.index == str(tmp_path)


def test_a_scan_that_was_not_scored_yet_is_asked_for(stub, phantom, host, index):
    host.ui.indexLineEdit.text = str(index)
    host.ui.similarScanButton.click()
    wait(host, "Score this scan first")


@pytest.mark.slow
def test_cases_are_found_by_scan_and_by_words_and_shown_beside_the_scan(empty_scene, host, index, scans):
    own = slicer.util.loadVolume(str(scans / "own.nii.gz"))
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(scans / "own.nii.gz"))
    own.SetAndObserveStorageNodeID(storage.GetID())
    own.GetDisplayNode().AutoWindowLevelOff()
    own.GetDisplayNode().SetWindowLevel(1500, -600)
    host.parameters.inputVolume = own
    for name in views.FIRST_ROW:
        view = slicer.app.layout_manager.sliceWidget(name).sliceLogic().GetSliceCompositeNode()
        view.SetBackgroundVolumeID(own.GetID())
    host.score()
    ui, table = host.ui, host.ui.similarTable
    ui.indexLineEdit.text = str(index)
    ui.similarScanButton.click()
    wait(host, "The best 2 of 3")
    assert "left out" in said(host) and "Not for patients: demonstration" in said(host)
    assert host.column(RANK, table) == ["1", "2"] and host.column(CASE, table) == ["case1", "case2"]
    scores = [float(text) for text in host.column(SCORE, table)]
    assert scores == sorted(scores, reverse=True) and host.column(NOTE, table) == ["", ""]

    table.cellDoubleClicked.emit(0, 0)
    assert "Above: own. Below: case1, rank 1" in said(host)
    assert slicer.app.layout_manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView
    other = slicer.util.getNode("case1")
    shown = {node.GetLayoutName(): node.GetBackgroundVolumeID() for node in composites()}
    assert shown == dict.fromkeys(views.FIRST_ROW, own.GetID()) | dict.fromkeys(views.SECOND_ROW, other.GetID())
    assert host.parameters.inputVolume is own
    assert (other.GetDisplayNode().GetWindow(), other.GetDisplayNode().GetLevel()) == (1500, -600)

    table.selectRow(0)
    ui.loadBesideButton.click()  # is in the scene already
    table.selectRow(1)
    ui.loadBesideButton.click()
    volumes = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
    assert sorted(volumes) == ["case1", "case2", "own"]
    ui.oneScanButton.click()
    assert slicer.app.layout_manager.layout == 1 and not ui.oneScanButton.enabled

    ui.wordsLineEdit.text = "There is a pleural effusion"
    ui.similarCountSpinBox.value = 1
    ui.similarWordsButton.click()
    wait(host, "The best 1 of 3")
    assert table.rowCount == 1


def composites():
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def test_scoring_does_not_wait_for_an_index(faulty, phantom, host, answers, tmp_path):
    host.ui.indexLineEdit.text = str(tmp_path / "index")
    answers.folder = tmp_path
    faulty("hangs")
    host.ui.updateIndexButton.click()
    faulty("nothing")
    host.score()
    assert host.status.startswith("Done in") and host.ui.updateIndexButton.text == "Cancel"
    host.logic.close()
    assert said(host) == "Cancelled." and host.ui.updateIndexButton.text == "Add scans…"


@pytest.mark.slow
def test_an_index_is_made_from_a_folder_in_the_panel(phantom, host, answers, scans, tmp_path):
    host.ui.indexLineEdit.text = str(tmp_path / "index")
    answers.folder = scans
    host.ui.updateIndexButton.click()
    assert host.ui.updateIndexButton.text == "Cancel" and not host.ui.similarScanButton.enabled
    host.ui.updateIndexButton.click()
    wait(host, "Cancelled.")
    assert host.ui.updateIndexButton.text == "Add scans…"
    host.ui.updateIndexButton.click()
    wait(host, "3 cases in the index, 3 of them new")
    host.pump(lambda: host.logic._indexing is None)  # with its worker, so that the memory is free again


@pytest.mark.slow
def test_what_goes_wrong_is_one_sentence_under_the_table(phantom, host, index, tmp_path):
    host.ui.wordsLineEdit.text = "There is a pleural effusion"

    def search(folder):
        host.ui.indexLineEdit.text = str(folder)
        host.ui.similarWordsButton.click()
        host.pump(lambda: host.ui.similarWordsButton.text != "Cancel")
        return said(host)

    assert "is not an index" in search(tmp_path / "nothing")
    other = tmp_path / "index"
    shutil.copytree(index, other)
    about = json.loads((other / "index.json").read_text(encoding="utf-8"))
    (other / "index.json").write_text(json.dumps({**about, "weights_checksum": "f" * 64}), encoding="utf-8")
    assert "cannot be compared" in search(other)
    (other / "index.json").write_text("{", encoding="utf-8")
    assert "damaged" in search(other)
    host.ui.wordsLineEdit.text = "x"
    assert 'the text "x" reaches the model' in search(index).replace("The text", "the text")
    assert host.ui.similarTable.rowCount == 0


def hit(path, **values):
    return {"rank": 1, "case": "old", "path": str(path), "series": None, "score": 0.5, "missing": False, **values}


def test_a_case_whose_file_has_vanished_is_marked_and_named(phantom, host, tmp_path):
    host.panel._similar._fill([hit(tmp_path / "gone.nii.gz", missing=True)])
    assert host.column(NOTE, host.ui.similarTable) == ["missing"]
    host.ui.similarTable.cellDoubleClicked.emit(0, 0)
    assert "old is no longer at" in said(host).replace("Old", "old") and "gone.nii.gz" in said(host)
    assert slicer.app.layout_manager.layout == 1


def test_a_case_that_cannot_be_loaded_is_a_sentence(phantom, host, tmp_path):
    (tmp_path / "old.nii.gz").write_bytes(b"no image")
    host.panel._similar._fill([hit(tmp_path / "old.nii.gz")])
    host.ui.similarTable.cellDoubleClicked.emit(0, 0)
    assert "cannot be loaded" in said(host) and slicer.app.layout_manager.layout == 1


def test_a_heat_map_stays_off_the_second_scan(phantom, host, tmp_path):
    write_nrrd(scene.take_snapshot(phantom), tmp_path / "old.nrrd", lambda fraction: None)
    host.panel._similar._fill([hit(tmp_path / "old.nrrd")])
    host.ui.similarTable.cellDoubleClicked.emit(0, 0)
    heat = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "heat")
    views.show_heatmap(heat, 0.4)
    shown = {node.GetLayoutName(): node.GetForegroundVolumeID() for node in composites()}
    assert shown == dict.fromkeys(views.FIRST_ROW, heat.GetID()) | dict.fromkeys(views.SECOND_ROW)
    second = slicer.app.layout_manager.sliceWidget("Red+").sliceLogic().GetSliceNode().GetSliceToRAS()
    before = second.GetElement(0, 3)
    views.jump_to([77.0, 0.0, 0.0])
    assert second.GetElement(0, 3) == before
