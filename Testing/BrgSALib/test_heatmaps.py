"""Heat maps: volumes on the scan's geometry, several of a scan, one of them shown, none kept in memory."""

import nibabel
import numpy as np
import pytest
import slicer
import vtk

from BrgSALib import heatmap_nodes, scene, views
from BrgSALib.volume_file import write_nrrd

NAME = 0


@pytest.fixture
def map_file(phantom, tmp_path):
    """A file as the worker writes it: values 0 to 1 on the phantom's grid."""
    values = np.linspace(0, 1, slicer.util.arrayFromVolume(phantom).size, dtype=np.float32)
    source = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "source")
    slicer.util.updateVolumeFromArray(source, values.reshape(slicer.util.arrayFromVolume(phantom).shape))
    source.CopyOrientation(phantom)
    write_nrrd(scene.take_snapshot(source), tmp_path / "heat.nrrd", lambda fraction: None)
    slicer.mrmlScene.RemoveNode(source)
    return str(tmp_path / "heat.nrrd")


def matrix(volume):
    found = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(found)
    return np.array([found.GetElement(*divmod(n, 4)) for n in range(16)]).reshape(4, 4)


def maps():
    return [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if heatmap_nodes.is_heatmap(node)]


def test_a_heat_map_lies_on_the_scan_and_hides_low_values(phantom, map_file):
    heat = heatmap_nodes.load_heatmap(map_file, phantom, "Lung nodule", [10.0, 20.0, 30.0])
    assert heat.GetName() == "BrgSAPhantom: attention for Lung nodule"
    assert heat.GetAttribute("BrgSA.Meaning") == "model attention, not a segmentation"
    display = heat.GetDisplayNode()
    assert display.GetApplyThreshold() and display.GetLowerThreshold() == pytest.approx(0.3)
    assert "Inferno" in display.GetColorNodeID() and not display.GetAutoWindowLevel()
    assert np.allclose(matrix(heat), matrix(phantom), atol=1e-3)
    assert heatmap_nodes.heatmap_maximum(heat) == [10, 20, 30]
    assert heat.GetNodeReference(scene.INPUT_REFERENCE) is phantom


def test_maps_of_several_abnormalities_are_kept_and_one_made_again_gets_the_new_values(phantom, map_file):
    first = heatmap_nodes.load_heatmap(map_file, phantom, "Emphysema", None)
    second = heatmap_nodes.load_heatmap(map_file, phantom, "Lung nodule", None)
    slicer.util.arrayFromVolume(first)[:] = 7
    assert maps() == [first, second] and heatmap_nodes.heatmap_maximum(first) is None
    assert heatmap_nodes.load_heatmap(map_file, phantom, "Emphysema", [1.0, 2.0, 3.0]) is first
    assert slicer.util.arrayFromVolume(first).max() == 1 and maps() == [first, second]


def test_a_heat_map_is_never_offered_or_taken_as_the_scan(phantom, host, map_file):
    heat = heatmap_nodes.load_heatmap(map_file, phantom, "Emphysema", None)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "another scan")
    selector = host.ui.inputVolumeSelector
    assert [selector.itemText(n) for n in range(1, selector.count)] == [phantom.GetName(), other.GetName()]
    slicer.mrmlScene.RemoveNode(phantom)
    assert host.parameters.inputVolume is other
    slicer.mrmlScene.RemoveNode(other)
    host.widget.initializeParameterNode()
    assert host.parameters.inputVolume is None and maps() == [heat]
    assert host.ui.heatmapSelector.count == 2, "the list of heat maps has it beside its None"


def test_a_file_that_cannot_be_read_adds_nothing(phantom, tmp_path):
    with pytest.raises(ValueError, match="Emphysema cannot be read"):
        heatmap_nodes.load_heatmap(str(tmp_path / "none.nrrd"), phantom, "Emphysema", None)
    assert not maps()


def test_slicers_save_offers_a_map_and_writes_it_as_nifti_on_the_scan(phantom, map_file, tmp_path):
    heat = heatmap_nodes.load_heatmap(map_file, phantom, "Emphysema", None)
    assert heat.GetModifiedSinceRead() and heat.GetSaveWithScene() and heat.GetStorageNode() is None
    heat.AddDefaultStorageNode()
    storage = heat.GetStorageNode()
    storage.SetFileName(str(tmp_path / "heat.nii.gz"))
    assert storage.SupportedFileType(storage.GetFileName()) and storage.WriteData(heat)
    saved = nibabel.load(tmp_path / "heat.nii.gz")
    assert np.allclose(saved.affine, matrix(phantom), atol=1e-3)
    assert np.allclose(saved.get_fdata().T, slicer.util.arrayFromVolume(heat), atol=1e-6)


@pytest.fixture
def shown(faulty, phantom, host, map_file, monkeypatch):
    """The panel with scores, three slice views, and a worker that gives the map."""
    monkeypatch.setenv("BRGSA_TEST_HEATMAP", map_file)
    for name in views.FIRST_ROW:
        slicer.app.layout_manager.sliceWidget(name)
    for view in composites():
        view.SetBackgroundVolumeID(phantom.GetID())
    faulty("nothing")
    host.score()
    return host


def composites():
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def foregrounds():
    return {view.GetForegroundVolumeID() for view in composites()}


def ask_for(host, row):
    host.ui.resultTable.cellDoubleClicked.emit(row, 0)
    host.pump(lambda: host.ui.heatmapButton.text == "Heat map" and "attention" in host.status)
    return host.parameters.heatmap


def test_a_heat_map_that_the_version_lacks_is_a_sentence(stub, phantom, host):
    host.score()
    host.ui.resultTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: "eat maps are not available" in host.status)
    assert not host.ui.heatmapCheckBox.enabled


def test_a_double_click_lays_the_heat_map_over_the_scan_and_jumps_to_its_maximum(shown):
    heat = ask_for(shown, 0)
    assert "model attention, not a segmentation" in shown.status
    assert "not a segmentation" in shown.ui.heatmapLabel.text and shown.ui.heatmapLabel.isVisible()
    assert foregrounds() == {heat.GetID()} and slicer.app.shown["legend"] == heat.GetID()
    assert {view.GetBackgroundVolumeID() for view in composites()} == {shown.parameters.inputVolume.GetID()}
    assert [view.GetForegroundOpacity() for view in composites()] == pytest.approx([0.4] * 3)
    place = slicer.app.layout_manager.sliceWidget("Red").sliceLogic().GetSliceNode().GetSliceToRAS()
    assert [place.GetElement(axis, 3) for axis in range(3)] == pytest.approx([10, 20, 30])
    shown.ui.heatmapOpacitySlider.value = 0.7
    assert [view.GetForegroundOpacity() for view in composites()] == pytest.approx([0.7] * 3)
    shown.ui.heatmapCheckBox.click()
    assert foregrounds() == {None}
    shown.ui.heatmapCheckBox.click()
    assert foregrounds() == {heat.GetID()}


def test_the_button_makes_the_map_of_the_selected_row(shown):
    shown.ui.heatmapButton.click()
    assert "Select a row" in shown.status
    shown.ui.resultTable.selectRow(2)
    shown.ui.heatmapButton.click()
    shown.pump(lambda: shown.parameters.heatmap is not None)
    assert shown.column(NAME)[2] in shown.parameters.heatmap.GetName()


def test_several_maps_are_kept_and_the_one_that_is_chosen_is_shown(shown):
    first, second = ask_for(shown, 0), ask_for(shown, 1)
    assert maps() == [first, second] and foregrounds() == {second.GetID()}
    selector = shown.ui.heatmapSelector
    assert [selector.itemText(n) for n in range(selector.count)] == ["none", first.GetName(), second.GetName()]
    selector.setCurrentNode(first)
    assert shown.parameters.heatmap is first and foregrounds() == {first.GetID()}
    shown.ui.heatmapCheckBox.click()
    selector.setCurrentNode(second)
    assert foregrounds() == {None}
    shown.ui.heatmapCheckBox.click()
    assert foregrounds() == {second.GetID()}
    selector.setCurrentNode(None)
    assert foregrounds() == {None} and not shown.ui.jumpButton.enabled


def test_jump_goes_to_the_maximum_again(shown):
    ask_for(shown, 0)
    place = slicer.app.layout_manager.sliceWidget("Red").sliceLogic().GetSliceNode()
    views.jump_to([0, 0, 0])
    shown.ui.jumpButton.click()
    assert [place.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)] == pytest.approx([10, 20, 30])


def test_another_foreground_of_the_user_is_left_alone(shown):
    ask_for(shown, 0)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "PET")
    red = slicer.app.layout_manager.sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    red.SetForegroundVolumeID(other.GetID())
    shown.ui.heatmapOpacitySlider.value = 0.9
    shown.ui.heatmapCheckBox.click()
    assert red.GetForegroundVolumeID() == other.GetID() and red.GetForegroundOpacity() == pytest.approx(0.4)


def test_entering_the_module_again_does_not_touch_the_views(shown):
    ask_for(shown, 0)
    views.hide_heatmap()
    shown.widget.exit()
    shown.widget.enter()
    assert foregrounds() == {None}


def test_making_a_map_can_be_cancelled(faulty, phantom, host, map_file, monkeypatch):
    monkeypatch.setenv("BRGSA_TEST_HEATMAP", map_file)
    faulty("never makes a map")
    host.score()
    host.ui.resultTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: "ollowing the attention" in host.status and "%" in host.status)
    assert host.ui.heatmapButton.text == "Cancel"
    host.ui.heatmapButton.click()
    host.pump(lambda: host.status == "Cancelled.")
    assert host.ui.heatmapButton.text == "Heat map" and not maps()


def test_a_scan_that_changed_since_it_was_scored_gets_no_map(shown):
    volume = shown.parameters.inputVolume
    slicer.util.arrayFromVolume(volume)[0, 0, 0] = 9
    slicer.util.arrayFromVolumeModified(volume)
    shown.ui.resultTable.cellDoubleClicked.emit(0, 0)
    shown.pump(lambda: "Score the scan again" in shown.status)
    assert not maps()


def test_a_map_that_is_deleted_gives_its_memory_back(faulty, phantom, host, map_file, monkeypatch):
    monkeypatch.setenv("BRGSA_TEST_HEATMAP", map_file)
    faulty("nothing")
    host.score()
    ask_for(host, 0)
    ask_for(host, 1)
    freed = []
    for heat in maps():
        heat.GetImageData().AddObserver("DeleteEvent", lambda *_: freed.append(1))
        slicer.mrmlScene.RemoveNode(heat)
    del heat
    assert freed == [1, 1]
    assert host.parameters.heatmap is None and not host.ui.heatmapCheckBox.enabled
