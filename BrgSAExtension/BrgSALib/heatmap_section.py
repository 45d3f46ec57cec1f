"""The heat maps under the results: making them, and choosing which one is shown, how strongly, and from where."""

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from brgsa.worker.protocol import NO_SCAN, NOT_AVAILABLE

from . import scene, views
from .heatmap_nodes import heatmap_maximum, is_heatmap, release
from .request_button import RequestButton
from .results_table import ResultsTable
from .session import Done, Failed, Progress, Stop
from .worker_client import ENDED


class HeatmapSection:
    """Wires the widgets.

    Args:
        ui: the panel's widgets by name.
        logic: a `BrgSALogic`.
        results: the table whose selected row is meant.
        abnormalities: gives the list under edit.
        say: shows a sentence.
        log: takes lines for the log.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        results: ResultsTable,
        abnormalities: Callable[[], Any],
        say: Callable[[str], None],
        log: Callable[[str], None],
    ):
        self._ui, self._logic, self._results, self._abnormalities = ui, logic, results, abnormalities
        self._say, self._log = say, log
        self._parameters: Any = None
        self._shown = ""  # ID of the map in the views
        self._button = RequestButton(ui.heatmapButton, self._make_selected, say)
        # the other volumes of the scene are no heat maps
        ui.heatmapSelector.addAttribute("vtkMRMLScalarVolumeNode", scene.ABNORMALITY_ATTRIBUTE)
        ui.heatmapCheckBox.connect("toggled(bool)", lambda on: self._show())
        ui.heatmapOpacitySlider.connect("valueChanged(double)", self._on_opacity)
        ui.jumpButton.connect("clicked(bool)", lambda checked=False: self._jump())

    def set_parameters(self, parameters: Any) -> None:
        """Take over the state of a scene; what its views show stays."""
        self._parameters = parameters
        self._shown = self._id()

    def refresh(self) -> None:
        """Follow the parameters: another map was chosen, or the one that was shown is gone."""
        self._keep_out_of_scans()
        heat = self._heat()
        for widget in (self._ui.heatmapCheckBox, self._ui.heatmapOpacitySlider):
            widget.enabled = heat is not None
        self._ui.jumpButton.enabled = heat is not None and heatmap_maximum(heat) is not None
        has_scores = bool(self._results.names())
        tip = _("Show where the model looks for the selected abnormality; a double click on its row does the same.")
        self._button.enable(has_scores, tip if has_scores else _("Score a scan first."))
        if self._id() != self._shown:
            self._show()

    def make(self, name: str) -> None:
        """Ask where the model looks for an abnormality, show it and jump to its maximum."""
        volume = scene.result_volume(self._parameters.resultTable) if self._parameters else None
        if volume is None:
            self._say(_("The scan of these scores is not in the scene any more."))
            return

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            return self._logic.heatmap(volume, name, self._abnormalities(), done, failed, progress)

        def made(heat: Any) -> None:
            self._parameters.heatmap = heat
            self._ui.heatmapCheckBox.blockSignals(True)
            self._ui.heatmapCheckBox.checked = True
            self._ui.heatmapCheckBox.blockSignals(False)
            self._show()
            self._jump()
            self._say(_("{name}: model attention, not a segmentation.").format(name=name))
            self.refresh()

        def failed(code: str, message: str, more: Any) -> None:
            self._say(_("Score the scan again to see heat maps.") if code in (NO_SCAN, ENDED) else message)
            if code not in (NO_SCAN, NOT_AVAILABLE):
                self._log(message)
            self.refresh()

        self._button.run(send, made, failed)
        self.refresh()

    def on_node_added(self, node: Any) -> None:
        """Do not offer a map as a scan."""
        if is_heatmap(node):
            self._keep_out_of_scans()

    def on_node_removed(self, node: Any) -> None:
        """Give the memory of a map back that the user deleted."""
        if is_heatmap(node):
            release(node)
            self.refresh()

    def _keep_out_of_scans(self) -> None:
        # A selector can only ask for an attribute, not for its absence; unasked it takes the next node for one deleted.
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        hidden = [node.GetID() for node in nodes if is_heatmap(node)]
        self._ui.inputVolumeSelector.sortFilterProxyModel().hiddenNodeIDs = hidden

    def _make_selected(self) -> None:
        if name := self._results.selected():
            self.make(name)
        else:
            self._say(_("Select a row of the results first."))

    def _show(self) -> None:
        heat = self._heat()
        self._shown = self._id()
        if heat is not None and self._ui.heatmapCheckBox.checked:
            views.show_heatmap(heat, self._parameters.heatmapOpacity)
        else:
            views.hide_heatmap()

    def _jump(self) -> None:
        heat = self._heat()
        if heat is not None and (place := heatmap_maximum(heat)):
            views.jump_to(place)

    def _on_opacity(self, opacity: float) -> None:
        if self._heat() is not None and self._ui.heatmapCheckBox.checked:
            views.set_heatmap_opacity(opacity)

    def _heat(self) -> Any:
        heat = self._parameters.heatmap if self._parameters is not None else None
        return heat if is_heatmap(heat) else None

    def _id(self) -> str:
        heat = self._heat()
        return heat.GetID() if heat is not None else ""
