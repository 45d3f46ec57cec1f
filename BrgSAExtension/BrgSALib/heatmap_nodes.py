"""Heat maps in the scene: ordinary volume nodes on the scan's geometry, so Slicer's own Save writes them."""

from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from .scene import ABNORMALITY_ATTRIBUTE, INPUT_REFERENCE, place_under_study

MAXIMUM_ATTRIBUTE = "BrgSA.MaximumRAS"
LOWEST_SHOWN = 0.3  # of the maximum; as in the pictures of the HTML page


def load_heatmap(path: str, volume: Any, abnormality: str, maximum: Sequence[float] | None) -> Any:
    """Load a heat map file as a volume that lies on the scan, low values transparent.

    A scan has one map for an abnormality: made again, it gets the new values.

    Args:
        maximum: RAS mm.

    Raises:
        ValueError: the file cannot be read.
    """
    scene = slicer.mrmlScene
    heat = find_heatmap(volume, abnormality)
    if heat is None:
        heat = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        heat.UnRegister(None)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()  # not the node's own: the file is a temporary one
    storage.SetFileName(path)
    storage.SetSingleFile(1)
    if not storage.ReadData(heat):
        raise ValueError(_("The heat map of {name} cannot be read.").format(name=abnormality))
    heat.SetName(heatmap_name(volume, abnormality))
    heat.SetAttribute(ABNORMALITY_ATTRIBUTE, abnormality)
    heat.SetAttribute("BrgSA.Meaning", "model attention, not a segmentation")
    heat.SetAttribute(MAXIMUM_ATTRIBUTE, " ".join(f"{value:.3f}" for value in maximum) if maximum else None)
    if heat.GetScene() is None:
        scene.AddNode(heat)
        heat.CreateDefaultDisplayNodes()
        display = heat.GetDisplayNode()
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileInferno.txt")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0.0, 1.0)
        display.ApplyThresholdOn()
        display.SetThreshold(LOWEST_SHOWN, 1.0)
        heat.SetNodeReferenceID(INPUT_REFERENCE, volume.GetID())
        place_under_study(heat, volume)
    heat.SetAndObserveTransformNodeID(None)
    heat.StorableModified()  # so that Save offers it
    return heat


def find_heatmap(volume: Any, abnormality: str) -> Any:
    """The map of an abnormality that a scan has already, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(ABNORMALITY_ATTRIBUTE) == abnormality and node.GetNodeReference(INPUT_REFERENCE) is volume:
            return node
    return None


def is_heatmap(node: Any) -> bool:
    """Whether a node is one of ours."""
    return node is not None and bool(node.GetAttribute(ABNORMALITY_ATTRIBUTE))


def heatmap_name(volume: Any, abnormality: str) -> str:
    """Name of the volume node of a heat map."""
    return _("{name}: attention for {abnormality}").format(name=volume.GetName(), abnormality=abnormality)


def heatmap_maximum(heat: Any) -> list[float] | None:
    """Where a map is strongest, RAS mm."""
    text = heat.GetAttribute(MAXIMUM_ATTRIBUTE)
    return [float(value) for value in text.split()] if text else None


def release(heat: Any) -> None:
    """Take the display nodes of a map that was deleted out of the scene; they would keep its voxels in memory."""
    for number in range(heat.GetNumberOfDisplayNodes()):
        # out of the scene a node knows others only by their IDs
        display = slicer.mrmlScene.GetNodeByID(heat.GetNthDisplayNodeID(number) or "")
        if display is not None:
            slicer.mrmlScene.RemoveNode(display)
