"""The panel: what happens when the user does something, and what is shown when the logic says something."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from brgsa.errors import FORCED, REFUSED, BrgSAError
from brgsa.worker.protocol import CANCELLED, ERROR_CODES, NO_SCAN

from . import scene, views
from .abnormality_table import AbnormalityTable
from .dialogs import Dialogs, set_clipboard_text
from .export_section import ExportSection
from .heatmap_section import HeatmapSection
from .report_check_section import ReportCheckSection
from .results_table import ResultsTable
from .session import LICENCE, SHIPPED
from .setup_section import SetupSection
from .similar_section import SimilarSection
from .worker_client import ENDED

RESCORE_DELAY_MS = 60  # so that a burst of changes is one request
DOUBLE_CLICK_SECONDS = 0.5
_MARKS = {"info": "ℹ", "warning": "⚠", "error": "✖"}


class Panel:
    """Connects the widgets of `Resources/UI/BrgSA.ui` with a `BrgSALogic`.

    Args:
        ui: widgets by name.
        logic: does the work.
        dialogs: questions to the user.
        clock: seconds, rising.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        dialogs: Dialogs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._ui, self._logic, self._clock = ui, logic, clock
        self._dialogs = dialogs or Dialogs()
        self._parameters: Any = None
        self._result: Mapping[str, Any] | None = None
        self._scoring = self._checking = self._force = False
        self._scored_volume_id = self._refused_volume_id = ""
        self._stop_reason = ""
        self._started = 0.0
        self._stage = ""
        self._scored_list = ""
        self._results = ResultsTable(ui.resultTable, lambda name: self._heatmaps.make(name))
        self._abnormalities = AbnormalityTable(ui, self._dialogs, self._on_list_changed)
        self.setup = SetupSection(ui, logic.settings, logic.activeSession, self._dialogs, self.refresh, self.log)
        self._heatmaps = HeatmapSection(
            ui, logic, self._results, lambda: self.abnormality_rows.to_list(), self.say, self.log
        )
        self._exports = ExportSection(
            ui, logic, self._dialogs, lambda: self._result, self._scored_volume, self.say, self.log
        )
        self._report_check = ReportCheckSection(
            ui,
            logic,
            lambda: self._result,
            self._scored_volume,
            lambda: self.abnormality_rows.to_list(only_on=False),
            lambda name: self._heatmaps.make(name),
        )
        self._similar = SimilarSection(ui, logic, self._dialogs, self._volume, self.setup.ask_licence)
        self._rescore_timer = qt.QTimer()
        self._rescore_timer.setSingleShot(True)
        self._rescore_timer.setInterval(RESCORE_DELAY_MS)
        self._rescore_timer.connect("timeout()", self._rescore)
        for button, slot in (
            (ui.scoreButton, self.on_score_button),
            (ui.scoreAnywayButton, lambda: self.on_score_button(force=True)),
            (ui.checkButton, self.check_input),
            (ui.showTableButton, self._show_table),
            (ui.showChartButton, self._show_chart),
            (ui.copyLogButton, lambda: set_clipboard_text(ui.logTextEdit.plainText)),
            (ui.clearLogButton, lambda: ui.logTextEdit.setPlainText("")),
        ):
            button.connect("clicked(bool)", lambda checked=False, slot=slot: slot())
        for combo in (ui.promptStyleComboBox, ui.scoreKindComboBox):
            combo.connect("currentIndexChanged(int)", lambda index: self._on_list_changed())
        logic.logTo(self.log)

    @property
    def abnormality_rows(self) -> Any:
        """The list under edit."""
        return self._abnormalities.rows

    def set_parameters(self, parameters: Any) -> None:
        """Show the state of a scene, or nothing while there is none."""
        self._parameters = None  # filling the widgets is no change by the user
        self._result = None
        if parameters is not None:
            self._abnormalities.restore(parameters.abnormalities)
            self._parameters = parameters
            self._result = scene.read_result(parameters.resultTable)
            parameters.abnormalities = self.abnormality_rows.to_json()
        else:
            self._report_check.clear()
        self._heatmaps.set_parameters(parameters)
        self._show_result()
        self.refresh()

    def refresh(self) -> None:
        """Bring texts and buttons in line with the parameters; called whenever they change."""
        ui, volume = self._ui, self._volume()
        problem = scene.volume_problem(volume)
        if not self._checking:
            shown = self._findings() if problem is None else []
            ui.inputLabel.text = problem or "\n".join([scene.describe_volume(volume), *shown])
        missing = problem
        if missing is None and not any(row.on for row in self.abnormality_rows.rows):
            missing = _("Switch at least one abnormality on.")
        ui.scoreButton.enabled = self._scoring or (missing is None and not self._checking)
        ui.scoreButton.text = _("Cancel") if self._scoring else _("Score")
        ui.scoreButton.toolTip = _("Stop scoring.") if self._scoring else missing or _("Score the scan.")
        refused = volume is not None and volume.GetID() == self._refused_volume_id
        ui.scoreAnywayButton.visible = refused and ui.scoreButton.enabled and not self._scoring
        ui.checkButton.enabled = problem is None and not self._scoring and not self._checking
        ui.progressBar.enabled = ui.progressBar.textVisible = self._scoring
        if not self._scoring:
            ui.progressBar.value = 0
        has_result = self._result is not None
        for button in (ui.showTableButton, ui.showChartButton):
            button.enabled = has_result
        for section in (self._heatmaps, self._exports, self._report_check, self._similar):
            section.refresh()
        self._refresh_banner()

    def log(self, line: str) -> None:
        """Add a line to the log."""
        self._ui.logTextEdit.appendPlainText(f"{time.strftime('%H:%M:%S')}  {line}")

    def say(self, text: str) -> None:
        """Show a sentence under the Score button."""
        self._ui.statusLabel.text = text[:1].upper() + text[1:]

    def on_score_button(self, force: bool = False) -> None:
        """Start, or stop what is running; `force` scores what the input checks refuse."""
        if self._scoring:
            # the second click of a double click that started it is not meant as Cancel
            if self._clock() - self._started > DOUBLE_CLICK_SECONDS:
                self.cancel()
            return
        if missing := self.setup.refresh_packages():
            if problem := self.setup.install_missing():
                self._ui.setupCollapsibleButton.collapsed = False
                self.say(problem)
                return
            self.log(_("Installed: {names}.").format(names=", ".join(missing)))
        self._scoring, self._started, self._stage, self._force = True, self._clock(), "", force
        self.say(_("Starting…"))
        self.refresh()
        self._scored_list = self._list_key()
        volume = self._volume()
        self._scored_volume_id, self._stop_reason = volume.GetID() if volume else "", ""
        self._refused_volume_id = ""
        try:
            self._logic.process(
                volume,
                self.abnormality_rows.to_list(),
                waitForCompletion=False,
                promptStyle=self._parameters.promptStyle,
                scoreKind=self._parameters.scoreKind,
                force=force,
                tableNode=self._parameters.resultTable,
                onProgress=self._on_progress,
                onFinished=self._on_finished,
                onFailed=self._on_failed,
            )
        except (ValueError, RuntimeError, BrgSAError) as error:
            self._on_failed("input", str(error), {})

    def cancel(self, reason: str = "") -> None:
        """Stop scoring; the panel is ready again when the worker has stopped."""
        if self._scoring:
            self._stop_reason = self._stop_reason or reason
            self._logic.cancel()
            self._ui.scoreButton.enabled = False
            self.say(_("Cancelling…"))

    def check_input(self) -> None:
        """Run the input checks alone."""
        self._checking = True
        self._ui.inputLabel.text = _("Checking…")
        self.refresh()
        volume = self._volume()

        def done(values: Mapping[str, Any]) -> None:
            self._checking = False
            self.refresh()
            lines = [scene.describe_volume(volume), *_finding_lines(values["findings"])]
            self._ui.inputLabel.text = "\n".join(lines)

        def failed(code: str, message: str, more: Mapping[str, Any]) -> None:
            self._checking = False
            self.refresh()
            self._ui.inputLabel.text = message[:1].upper() + message[1:]

        try:
            self._logic.check(volume, done, failed)
        except (ValueError, RuntimeError) as error:
            failed("input", str(error), {})

    def on_node_added(self, added: Any) -> None:
        """Keep a new heat map out of the list of scans."""
        self._heatmaps.on_node_added(added)

    def on_node_removed(self, removed: Any) -> None:
        """Stop when the scan that is being scored leaves the scene; give the memory of a heat map back."""
        self._heatmaps.on_node_removed(removed)
        self._report_check.on_node_removed(removed)
        if self._scoring and removed is not None and removed.GetID() == self._scored_volume_id:
            self.cancel(_("The volume was removed while it was scored."))

    def _volume(self) -> Any:
        return self._parameters.inputVolume if self._parameters is not None else None

    def _scored_volume(self) -> Any:
        return scene.result_volume(self._parameters.resultTable) if self._parameters is not None else None

    def _list_key(self) -> str:
        return f"{self.abnormality_rows.to_json()} {self._parameters.promptStyle} {self._parameters.scoreKind}"

    def _on_list_changed(self) -> None:
        if self._parameters is None:
            return
        self._parameters.abnormalities = self.abnormality_rows.to_json()
        self.refresh()
        if self._result is not None:
            self._rescore_timer.start()

    def _rescore(self) -> None:
        """Score the scan in the worker's memory with the list as it is now."""
        if self._scoring or self._parameters is None or self._parameters.resultTable is None:
            return
        volume = scene.result_volume(self._parameters.resultTable)
        try:
            abnormalities = self.abnormality_rows.to_list()
        except BrgSAError as error:
            self.say(str(error))
            return
        self._scored_list = self._list_key()
        started = self._clock()

        def done(table: Any, result: Mapping[str, Any]) -> None:
            self._result = result
            self._show_result()
            self.say(_("Scores updated in {s} s.").format(s=f"{self._clock() - started:.2f}"))

        def failed(code: str, message: str, more: Mapping[str, Any]) -> None:
            self.say(
                _("The list has changed. Press Score to update the scores.") if code in (NO_SCAN, ENDED) else message
            )

        self._logic.rescore(
            volume,
            abnormalities,
            self._parameters.promptStyle,
            self._parameters.scoreKind,
            self._parameters.resultTable,
            done,
            failed,
        )

    def _on_progress(self, fraction: float, stage: str) -> None:
        self._ui.progressBar.value = round(1000 * fraction)
        if self._ui.scoreButton.enabled and stage != self._stage:
            self._stage = stage
            self.log(stage)
            self.say(f"{stage}…")

    def _on_finished(self, table: Any, result: Mapping[str, Any]) -> None:
        self._scoring = False
        self._result = result
        if self._parameters is not None:
            self._parameters.resultTable = table
            self._parameters.resultChart = scene.write_chart(table, self._volume(), self._parameters.resultChart)
        self._show_result()
        seconds, remarks = self._clock() - self._started, result.get("messages", ())
        made_with = result["settings"]
        text = _("Done in {s} s on {device} in {precision}.").format(
            s=f"{seconds:.1f}", device=made_with["device"], precision=made_with["precision"]
        )
        for remark in remarks:
            self.log(remark)
        self.say(text + (" " + _("{n} remarks are in the log.").format(n=len(remarks)) if remarks else ""))
        self.refresh()
        if self._parameters is not None and self._list_key() != self._scored_list:
            self._rescore_timer.start()

    def _on_failed(self, code: str, message: str, more: Mapping[str, Any]) -> None:
        self._scoring = False
        if code == CANCELLED:
            message = self._stop_reason or _("Cancelled.")
        else:
            self.log(message)
        if code == REFUSED:
            self._refused_volume_id = self._scored_volume_id
            message = _("Not scored, because the scores would mean nothing.") + "\n"
            message += "\n".join(_finding_lines(more["findings"]))
        if code == ERROR_CODES[5]:
            message = message.partition(". ")[0] + ". " + _("Choose precision bf16 or device cpu under Setup.")
        self.say(message)
        if code in (LICENCE, ERROR_CODES[4]):
            self._ui.setupCollapsibleButton.collapsed = False
        self.refresh()
        if code == LICENCE:
            self.setup.ask_licence()
        elif code == ERROR_CODES[5]:
            self._offer_less_memory(message)

    def _offer_less_memory(self, message: str) -> None:
        """Out of memory: offer half precision on an accelerator, then the processor."""
        settings = self._logic.settings
        for name, value, question in (
            ("precision", "bf16", _("Try again with half precision (bf16)?")),
            ("device", "cpu", _("Try again on the processor (CPU)?")),
        ):
            if settings.device == "cpu" or getattr(settings, name) == value:
                continue
            if self._dialogs.confirm(f"{message}\n\n{question}"):
                combo = self._ui.precisionComboBox if name == "precision" else self._ui.deviceComboBox
                combo.setCurrentIndex(combo.findText(value))
                self.on_score_button(self._force)
                return

    def _show_result(self) -> None:
        result = self._result
        self._report_check.refresh()
        if result is None:
            self._results.show([])
            self._ui.resultLabel.text = _("No scores yet.")
            return
        self._results.show(result["scores"])
        settings = result.get("settings", {})
        name, weights = result.get("case", ""), settings.get("weights", "")
        text = _("{n} abnormalities on {name}, weights {weights}.").format(
            n=len(result["scores"]), name=name, weights=weights
        )
        text += " " + (
            _("Bars and scores are cosines from -1 to 1: compare them between scans, not between abnormalities.")
        )
        if FORCED in result.get("flags", ()):
            text = _("Scored although the input checks refuse it: the scores mean nothing.") + " " + text
        self._ui.resultLabel.text = text

    def _findings(self) -> list[str]:
        """What the input checks said of the chosen volume, if it is the one that was scored."""
        if self._result is None or scene.result_volume(self._parameters.resultTable) is not self._volume():
            return []
        return _finding_lines(self._result.get("findings", ()))

    def _refresh_banner(self) -> None:
        notice = (self._result or {}).get("notice")
        if notice is None and self._logic.settings.weights == SHIPPED:
            notice = _("demonstration weights, their scores mean nothing")
        self._ui.bannerLabel.visible = notice is not None
        self._ui.bannerLabel.text = _("Not for patients: {notice}. Choose other weights under Setup.").format(
            notice=notice
        )

    def _show_table(self) -> None:
        if self._parameters and self._parameters.resultTable:
            views.show_table(self._parameters.resultTable)

    def _show_chart(self) -> None:
        if self._parameters and self._parameters.resultChart:
            views.show_chart(self._parameters.resultChart)


def _finding_lines(findings: Any) -> list[str]:
    lines = [
        f"{_MARKS.get(each['severity'], '')} {each['message'][:1].upper()}{each['message'][1:]}" for each in findings
    ]
    return lines or [_("✓ A whole chest CT in Hounsfield units.")]
