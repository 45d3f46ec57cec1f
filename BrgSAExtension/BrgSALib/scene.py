"""MRML in and out: volumes to score, scores as a table and a chart.

What is written into a scene is a table node with the scores (its attribute `BrgSA.Result` holds the whole result, so a
reloaded scene shows everything again) and a bar chart. Heat maps are made by `heatmap_nodes`.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .volume_file import Snapshot, supports

ABNORMALITY_ATTRIBUTE = "BrgSA.Abnormality"  # of a heat map: what it shows
RESULT_ATTRIBUTE = "BrgSA.Result"
INPUT_REFERENCE = "BrgSA.InputVolume"
TABLE_REFERENCE = "BrgSA.ScoreTable"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_problem(volume: Any) -> str | None:
    """Why a volume cannot be scored, in one sentence, or None."""
    if volume is None:
        return _("Choose a chest CT volume.")
    if not volume.IsA("vtkMRMLScalarVolumeNode"):
        if volume.IsA("vtkMRMLSequenceNode"):
            return _("This is a time sequence. Choose one time point as a volume of its own.")
        return _("This is not a volume. Choose a chest CT volume.")
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("This is a label map. Choose the CT that it was drawn on.")
    if volume.GetAttribute(ABNORMALITY_ATTRIBUTE):
        return _("This is a heat map. Choose the CT that it was made of.")
    image = volume.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        return _("The volume has no voxels. Load it again or choose another.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("The volume has {n} values in each voxel (a colour picture or a time series). Choose a CT.").format(
            n=image.GetNumberOfScalarComponents()
        )
    if min(image.GetDimensions()) < 2:
        return _("The volume is a single slice. Choose a whole chest CT.")
    if not supports(_voxels(volume).dtype):
        return _("Voxels of the type {t} cannot be scored. Cast the volume to Int or Float.").format(
            t=_voxels(volume).dtype.name
        )
    if _is_sequence_proxy(volume):
        return _("The volume shows one time point of a sequence. Clone it in the Data module and choose the clone.")
    transform = volume.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        return _(
            "The volume is under the non-linear transform {name}. Harden it in the Transforms module first."
        ).format(name=transform.GetName())
    return None


def describe_volume(volume: Any) -> str:
    """Size and spacing in one line."""
    size = " × ".join(str(n) for n in volume.GetImageData().GetDimensions())
    spacing = " × ".join(f"{length:.2f}" for length in volume.GetSpacing())
    return _("{size} voxels, {spacing} mm").format(size=size, spacing=spacing)


def take_snapshot(volume: Any) -> Snapshot:
    """The voxels (a view, not a copy) and the geometry of a volume; a linear transform is applied to the geometry.

    Raises:
        ValueError: the volume cannot be scored; the message says why.
    """
    if problem := volume_problem(volume):
        raise ValueError(problem)
    return Snapshot(_voxels(volume), _ijk_to_lps(volume), volume.GetName() or "", volume_key(volume))


def volume_key(volume: Any) -> str:
    """A text that changes when the voxels or their place change. The name may change without."""
    matrix = ",".join(f"{value:.9g}" for value in _ijk_to_lps(volume).ravel())
    return f"{volume.GetID()} {volume.GetImageData().GetMTime()} {matrix}"


def add_volume(voxels: np.ndarray, spacing: tuple[float, float, float], name: str) -> Any:
    """Add a volume to the scene.

    Args:
        voxels: (K, J, I), axes growing Superior, Posterior, Left.
        spacing: mm along I, J, K.
    """
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    volume.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    volume.SetSpacing(spacing)
    slicer.util.updateVolumeFromArray(volume, voxels)
    volume.CreateDefaultDisplayNodes()
    return volume


def find_scan(node_id: str, key: str) -> Any:
    """The volume with this ID if its voxels and place are still those of `key`, else None.

    A new scene gives the same IDs to other nodes, so an ID alone is not a proof.
    """
    volume = slicer.mrmlScene.GetNodeByID(node_id)
    if volume is None or volume_problem(volume) or volume_key(volume) != key:
        return None
    return volume


def write_result(volume: Any, result: Mapping[str, Any], table: Any = None) -> Any:
    """Put a result into a table node: columns for people and plots, attributes for provenance.

    Args:
        volume: the scan that was scored.
        result: as the worker gives it (`ScanScores.to_dict()`).
        table: node to fill again; a new one by default.
    """
    scene = slicer.mrmlScene
    if table is None or scene.GetNodeByID(table.GetID()) is None:
        table = scene.AddNewNodeByClass(
            "vtkMRMLTableNode", _("{name} abnormality scores").format(name=volume.GetName())
        )
    modifying = table.StartModify()
    table.RemoveAllColumns()
    rows = result["scores"]
    _add_column(table, "Abnormality", [row["name"] for row in rows], _("name of the abnormality"))
    _add_column(table, "Score", [row["score"] for row in rows], _("cosine between scan and prompt, -1 to 1"), "1")
    if any(row["probability"] is not None for row in rows):
        probabilities = [row["probability"] for row in rows]
        _add_column(table, "Probability", probabilities, _("calibrated probability of presence"), "1")
    if any(row["threshold"] is not None for row in rows):
        _add_column(table, "Threshold", [row["threshold"] for row in rows], _("score above which it is present"), "1")
        words = {True: "yes", False: "no", None: ""}
        _add_column(table, "Present", [words[row["positive"]] for row in rows], _("score above threshold"))
    table.SetUseColumnTitleAsColumnHeader(True)
    settings = result.get("settings", {})
    for name, key in (
        ("BrgSA.Weights", "weights"),
        ("BrgSA.WeightsChecksum", "weights_checksum"),
        ("BrgSA.AbnormalityList", "abnormalities"),
        ("BrgSA.PromptStyle", "prompts"),
        ("BrgSA.ScoreKind", "score"),
        ("BrgSA.Precision", "precision"),
    ):
        table.SetAttribute(name, str(settings.get(key, "")))
    table.SetAttribute("BrgSA.Notice", result.get("notice") or "")
    table.SetAttribute("BrgSA.Flags", " ".join(result.get("flags", ())))
    kept = {key: value for key, value in result.items() if key != "path"}  # that of a temporary copy
    table.SetAttribute(RESULT_ATTRIBUTE, json.dumps(kept, ensure_ascii=True))
    table.SetNodeReferenceID(INPUT_REFERENCE, volume.GetID())
    table.EndModify(modifying)
    place_under_study(table, volume)
    return table


def read_result(table: Any) -> dict[str, Any] | None:
    """The result that a table node was made from, or None when it was not made by BrgSA."""
    text = table.GetAttribute(RESULT_ATTRIBUTE) if table is not None else None
    try:
        result = json.loads(text) if text else None
        rows = result["scores"] if result else []
        wanted = ("name", "score", "probability", "threshold", "positive")
        return result if rows and all(key in row for row in rows for key in wanted) else None
    except (ValueError, TypeError, KeyError):
        return None


def write_chart(table: Any, volume: Any, chart: Any = None) -> Any:
    """Make or update the bar chart of a score table."""
    scene = slicer.mrmlScene
    if chart is None or scene.GetNodeByID(chart.GetID()) is None:
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", _("{name} chart").format(name=table.GetName()))
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "Score")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
        series.SetColor(0.27, 0.47, 0.67)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        chart.SetXAxisTitle(_("Abnormality"))
        chart.SetYAxisTitle(_("Score (cosine)"))
        chart.SetLegendVisibility(False)
        for each in (series, chart):
            each.SetNodeReferenceID(TABLE_REFERENCE, table.GetID())
            place_under_study(each, volume)
    chart.SetTitle(volume.GetName())
    series = chart.GetNthPlotSeriesNode(0)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetLabelColumnName("Abnormality")
    series.SetYColumnName("Score")
    return chart


def _voxels(volume: Any) -> np.ndarray:
    """(K, J, I), a view."""
    image = volume.GetImageData()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))


def _ijk_to_lps(volume: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    transform = volume.GetParentTransformNode()
    if transform is not None:
        to_world = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformToWorld(to_world)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    return RAS_TO_LPS @ np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _is_sequence_proxy(volume: Any) -> bool:
    if not hasattr(slicer, "vtkMRMLSequenceBrowserNode"):
        return False
    scene = slicer.mrmlScene
    count = scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")
    browsers = (scene.GetNthNodeByClass(n, "vtkMRMLSequenceBrowserNode") for n in range(count))
    return any(browser.IsProxyNodeID(volume.GetID()) for browser in browsers)


def _add_column(table: Any, title: str, values: list, description: str, unit: str = "") -> None:
    numbers = not any(isinstance(value, str) for value in values)
    column = vtk.vtkDoubleArray() if numbers else vtk.vtkStringArray()
    column.SetName(title)
    column.SetNumberOfValues(len(values))
    for n, value in enumerate(values):
        column.SetValue(n, math.nan if value is None else value)
    table.AddColumn(column)
    table.SetColumnTitle(title, title)
    table.SetColumnDescription(title, description)
    if unit:
        table.SetColumnUnitLabel(title, unit)


def place_under_study(new: Any, volume: Any) -> None:
    """Put a node beside the scan in the subject hierarchy; without the application's plugins there are no items."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    scan, item = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(new)
    if scan and item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(scan))


def result_volume(table: Any) -> Any:
    """The scan that a score table belongs to, or None."""
    return table.GetNodeReference(INPUT_REFERENCE) if table is not None else None
