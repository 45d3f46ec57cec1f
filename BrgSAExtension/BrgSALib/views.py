"""What the views around the panel show: table, chart, heat map, two scans. Without a main window nothing happens."""

from collections.abc import Iterator
from typing import Any

import slicer
from slicer.i18n import tr as _

from .heatmap_nodes import is_heatmap

BESIDE_ATTRIBUTE = "BrgSA.SimilarCase"  # of volumes that are shown beside a scan; holds their path
FIRST_ROW, SECOND_ROW = ("Red", "Green", "Yellow"), ("Red+", "Green+", "Yellow+")


def show_table(table: Any) -> None:
    """Show a table node in a layout that has a table view."""
    manager, logic = _manager(), slicer.app.applicationLogic()
    if manager is None or logic is None:
        return
    manager.setLayout(slicer.modules.tables.logic().GetLayoutWithTable(manager.layout))
    logic.GetSelectionNode().SetActiveTableID(table.GetID())
    logic.PropagateTableSelection()


def show_chart(chart: Any) -> None:
    """Show a chart node in a layout that has a plot view."""
    if _manager() is not None:
        slicer.modules.plots.logic().ShowChartInLayout(chart)


def show_heatmap(heat: Any, opacity: float) -> None:
    """Lay a heat map over the scan in the slice views; the scan and its window stay as they are.

    Views that show another scan beside it are left alone.
    """
    for view in _composites():
        background = slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID() or "")
        if background is None or not background.GetAttribute(BESIDE_ATTRIBUTE):
            view.SetForegroundVolumeID(heat.GetID())
            view.SetForegroundOpacity(opacity)
    if _manager() is not None:
        legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(heat)
        if legend is not None:
            legend.SetTitleText(_("attention, 1: strongest"))


def set_heatmap_opacity(opacity: float) -> None:
    """Change how strongly a heat map covers the scan."""
    for view in _views_with_heatmap():
        view.SetForegroundOpacity(opacity)


def hide_heatmap() -> None:
    """Take heat maps out of the slice views; their legend goes with them."""
    for view in _views_with_heatmap():
        view.SetForegroundVolumeID(None)


def jump_to(ras: Any) -> None:
    """Centre the slice views on a point, RAS mm; a second row of views belongs to another scan and stays."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, *(float(value) for value in ras), slicer.vtkMRMLSliceNode.CenteredJumpSlice, 0
    )


def show_beside(volume: Any, other: Any) -> int:
    """Show a scan in a first row of slice views and another one in a second row; return the layout before.

    The rows belong to two groups of views, so that linked views of one row do not move those of the other.
    """
    manager = _manager()
    if manager is None:
        return 0
    before = manager.layout
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
    for names, shown in ((FIRST_ROW, volume), (SECOND_ROW, other)):
        for name in names:
            logic = manager.sliceWidget(name).sliceLogic()
            view = logic.GetSliceCompositeNode()
            if view.GetBackgroundVolumeID() == shown.GetID():
                continue
            view.SetBackgroundVolumeID(shown.GetID())
            if names is SECOND_ROW:
                view.SetForegroundVolumeID(None)
                view.SetLabelVolumeID(None)
            logic.FitSliceToBackground()
    return before


def set_layout(layout: int) -> None:
    """Arrange the views in one of Slicer's layouts."""
    if _manager() is not None:
        _manager().setLayout(layout)


def same_window(volume: Any, like: Any) -> None:
    """Show a scan with the window and level of another."""
    display, wanted = volume.GetDisplayNode(), like.GetDisplayNode()
    if display is not None and wanted is not None:
        display.AutoWindowLevelOff()
        display.SetWindowLevel(wanted.GetWindow(), wanted.GetLevel())


def _composites() -> list[Any]:
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def _views_with_heatmap() -> Iterator[Any]:
    for view in _composites():
        if is_heatmap(slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID() or "")):
            yield view


def _manager() -> Any:
    return slicer.app.layoutManager()
