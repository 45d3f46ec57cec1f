"""Scans out of the scene and results into it, on real MRML nodes and real scans."""

import csv
import json

import numpy as np
import pytest
import slicer
import vtk

from brgsa.ct.volume import read_ct
from BrgSALib import exports, scene
from BrgSALib.volume_file import write_nrrd


def load(path, name="CT"):
    volume = slicer.util.loadVolume(str(path))
    volume.SetName(name)
    return volume


def written(volume, path):
    write_nrrd(scene.take_snapshot(volume), path, lambda fraction: None)
    return read_ct(path)


@pytest.mark.parametrize(
    "name", ["cip_ct64.nrrd", "cip_ct64_PSR.nii.gz", "cip_ct64_oblique.nii.gz", "nonchest_totalseg_abdomen.nii.gz"]
)
def test_a_scan_reaches_the_worker_with_its_voxels_in_their_place(empty_scene, real_ct, tmp_path, name):
    ours, direct = written(load(real_ct / name), tmp_path / "scan.nrrd"), read_ct(real_ct / name)
    np.testing.assert_allclose(ours.affine, direct.affine, atol=1e-4)
    np.testing.assert_array_equal(ours.voxels, direct.voxels)


def test_a_linear_transform_moves_the_scan_that_is_sent_and_not_the_one_in_the_scene(empty_scene, real_ct, tmp_path):
    volume = load(real_ct / "cip_ct64.nrrd")
    before = written(volume, tmp_path / "a.nrrd")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = vtk.vtkMatrix4x4()
    for axis, value in enumerate((10.0, -20.0, 30.0)):
        shift.SetElement(axis, 3, value)
    transform.SetMatrixTransformToParent(shift)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    key = scene.volume_key(volume)
    after = written(volume, tmp_path / "b.nrrd")
    np.testing.assert_allclose(after.affine[:3, 3] - before.affine[:3, 3], [-10, 20, 30], atol=1e-4)
    assert volume.GetParentTransformNode() is transform
    shift.SetElement(0, 3, 11.0)
    transform.SetMatrixTransformToParent(shift)
    assert scene.volume_key(volume) != key


def volume_of(array, **geometry):
    return slicer.util.addVolumeFromArray(array, name="x", **geometry)


def under_warp(volume):
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Warp")
    spline = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for point in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        points.InsertNextPoint(point)
    moved = vtk.vtkPoints()
    moved.DeepCopy(points)
    moved.SetPoint(0, 0.5, 0, 0)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(moved)
    spline.SetBasisToR()
    warp.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(warp.GetID())
    return volume


def in_sequence(volume):
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    sequence.SetDataNodeAtValue(volume, "0")
    browser.AddSynchronizedSequenceNode(sequence)
    browser.AddProxyNode(volume, sequence, False)
    return browser.GetProxyNode(sequence)


def rgb():
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    volume.SetAndObserveImageData(image)
    return volume


def zero_voxels():
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    volume.SetAndObserveImageData(vtk.vtkImageData())
    return volume


CT = np.zeros((4, 5, 6), np.int16)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: None, "Choose a chest CT"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"), "no voxels"),
        (zero_voxels, "no voxels"),
        (rgb, "3 values in each voxel"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode"), "time sequence"),
        (lambda: in_sequence(volume_of(CT)), "time point of a sequence"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode"), "label map"),
        (lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode"), "not a volume"),
        (lambda: under_warp(volume_of(CT)), "non-linear transform Warp"),
        (lambda: volume_of(CT[:1]), "single slice"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(empty_scene, make, part):
    volume = make()
    assert part in scene.volume_problem(volume)
    with pytest.raises(ValueError, match=part):
        scene.take_snapshot(volume)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_pixel_type_of_slicer_is_written(empty_scene, tmp_path, kind):
    values = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(kind)
    read = written(volume_of(values), tmp_path / "scan.nrrd")
    assert sorted(read.voxels.ravel().astype(int)) == list(range(60))


def test_writing_that_is_stopped_leaves_no_file(empty_scene, tmp_path):
    def stop(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_nrrd(scene.take_snapshot(volume_of(CT)), tmp_path / "scan.nrrd", stop)
    assert not list(tmp_path.iterdir())


def row(name, score, probability=None, threshold=None, positive=None):
    return {"name": name, "score": score, "probability": probability, "threshold": threshold, "positive": positive}


RESULT = {
    "version": 1,
    "case": "CT <1>",
    "path": "/tmp/secret/scan.nrrd",
    "notice": "demonstration: means nothing",
    "scores": [row("Emphysema", 0.25, 0.7, 0.1, True), row("Düne; & <b>x</b>", -0.125, None, None, None)],
    "findings": [{"code": "thick-slices", "severity": "warning", "message": "the slices are thick"}],
    "messages": [],
    "settings": {"weights": "phantom", "weights_checksum": "ab12", "prompts": "single", "score": "final"}
    | {"precision": "bf16"},
    "seconds": {},
}


def test_scores_become_a_table_with_titles_units_and_provenance(phantom):
    table = scene.write_result(phantom, RESULT)
    columns = [table.GetTable().GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    assert columns == ["Abnormality", "Score", "Probability", "Threshold", "Present"]
    assert table.GetTable().GetColumnByName("Abnormality").GetValue(1) == "Düne; & <b>x</b>"
    assert list(slicer.util.arrayFromTableColumn(table, "Score")) == [0.25, -0.125]
    assert np.isnan(slicer.util.arrayFromTableColumn(table, "Probability")[1])
    assert table.GetColumnUnitLabel("Score") == "1" and "cosine" in table.GetColumnDescription("Score")
    assert table.GetColumnTitle("Score") == "Score" and table.GetUseColumnTitleAsColumnHeader()
    assert table.GetAttribute("BrgSA.Weights") == "phantom"
    assert table.GetAttribute("BrgSA.WeightsChecksum") == "ab12"
    assert table.GetAttribute("BrgSA.Precision") == "bf16"
    assert scene.result_volume(table) is phantom


def test_a_second_result_fills_the_same_table(phantom):
    table = scene.write_result(phantom, RESULT)
    uncalibrated = {**RESULT, "scores": [row("Emphysema", 0.5)]}
    assert scene.write_result(phantom, uncalibrated, table) is table
    assert table.GetNumberOfColumns() == 2 and table.GetNumberOfRows() == 1


def test_the_chart_shows_the_scores_and_stays_one(phantom):
    table = scene.write_result(phantom, RESULT)
    chart = scene.write_chart(table, phantom)
    series = chart.GetNthPlotSeriesNode(0)
    assert series.GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeBar
    assert (series.GetLabelColumnName(), series.GetYColumnName()) == ("Abnormality", "Score")
    assert series.GetTableNode() is table
    assert scene.write_chart(table, phantom, chart) is chart and chart.GetNumberOfPlotSeriesNodes() == 1


def test_outputs_are_placed_beside_the_scan_in_the_subject_hierarchy(phantom):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, phantom)

    # outside the application no plugin makes items by itself, so the table gets one before it is filled
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), table)
    scene.write_result(phantom, RESULT, table)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(table)) == study


def test_a_saved_scene_gives_everything_back(phantom, tmp_path):
    table = scene.write_result(phantom, RESULT)
    scene.write_chart(table, phantom)
    table_file = slicer.vtkMRMLTableStorageNode()
    slicer.mrmlScene.AddNode(table_file)
    table_file.SetFileName(str(tmp_path / "scores.tsv"))
    table.SetAndObserveStorageNodeID(table_file.GetID())
    assert table_file.WriteData(table)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.mrmlScene.Connect()
    again = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    assert scene.read_result(again) == {key: value for key, value in RESULT.items() if key != "path"}
    assert scene.result_volume(again).GetName() == "BrgSAPhantom"
    chart = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
    assert chart.GetNthPlotSeriesNode(0).GetTableNode() is again


@pytest.mark.parametrize("text", ["", "x", "3", "{}", '{"scores": 1}', '{"scores": [{}]}', '{"scores": []}'])
def test_a_table_with_another_attribute_is_no_result(empty_scene, text):
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    table.SetAttribute(scene.RESULT_ATTRIBUTE, text)
    assert scene.read_result(table) is None


def test_exports_hold_the_scores_and_no_path(tmp_path):
    for suffix in exports.FORMATS:
        exports.write(tmp_path / f"scores{suffix}", RESULT)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(each["score"]) for each in rows] == [0.25, -0.125]
    assert rows[0]["positive"] == "yes" and rows[1]["probability"] == ""
    content = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert content["scores"] == RESULT["scores"]
    for suffix in exports.FORMATS:
        assert "secret" not in (tmp_path / f"scores{suffix}").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"\.json"):
        exports.write(tmp_path / "scores.docx", RESULT)


def test_bars_span_zero_every_score_and_every_threshold():
    assert exports.bar_range(RESULT["scores"]) == (-0.125, 0.25)
    assert exports.bar_range([row("x", 0.0)]) == (0.0, 1.0)
    assert exports.bar_range([row("x", 0.2, threshold=0.4)]) == (0.0, 0.4)
