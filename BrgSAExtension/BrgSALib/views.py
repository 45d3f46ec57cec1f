"""What the views around the panel show: score table, chart, heat map. Without a main window nothing happens."""

from typing import Any

import slicer


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
    """Lay a heat map over the scan in the slice views; the scan and its window stay as they are."""
    slicer.util.setSliceViewerLayers(foreground=heat, foregroundOpacity=opacity)
    if _manager() is not None:
        slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(heat)


def set_heatmap_opacity(opacity: float) -> None:
    """Change how strongly the foreground covers the scan."""
    slicer.util.setSliceViewerLayers(foregroundOpacity=opacity)


def hide_heatmap() -> None:
    """Take the foreground out of the slice views."""
    slicer.util.setSliceViewerLayers(foreground=None)


def _manager() -> Any:
    return slicer.app.layoutManager()
