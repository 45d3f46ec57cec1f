"""The section "Report check": a pasted report beside what the model sees in the scan, disagreements first.

The report is a patient's text. It stays in its box: nothing of it is written to a file, the log or the scene.
"""

from collections.abc import Callable, Mapping
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from brgsa.abnormalities import Abnormality, AbnormalityList
from brgsa.errors import BrgSAError

from . import scene
from .launch import report_check_launch
from .report_check import ReportCheck, Scored
from .request_button import RequestButton
from .session import Done, Failed, Options, Progress, Stop

VERDICT, NAME, SCORE, RANK, REPORT = range(5)
TICK_MS = 30
DISAGREEMENTS = ("report only", "model only")
NAMED = ("present", "uncertain")
_COUNTED = {"report": "report only", "model": "model only", "both": "both", "neither": "neither"}
# The command's words for the user of a terminal, and what they are in the panel.
_REPLACED = (
    ("add --allow-identifiers if this is none", "tick the box below the report if this is none"),
    (" (standard input)", ""),
    ("the report standard input", "the report"),
)


class ReportCheckSection:
    """Wires the widgets of the section.

    Args:
        ui: the panel's widgets by name.
        logic: a `BrgSALogic`.
        result: gives the result that is shown, or None.
        volume: gives the scan of that result, or None.
        rows: gives the rows under edit that can be scored, for their thresholds.
        show_heatmap: called with the name of an abnormality whose row was double-clicked.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        result: Callable[[], Mapping[str, Any] | None],
        volume: Callable[[], Any],
        rows: Callable[[], AbnormalityList],
        show_heatmap: Callable[[str], None],
    ):
        self._ui, self._logic = ui, logic
        self._result, self._volume, self._rows = result, volume, rows
        self._stop_reason = ""
        self._checked: tuple[str, str, Any] | None = None  # node ID, key and scores of the scan
        self._shown: list[Mapping[str, Any]] = []

        def launch(arguments: Any) -> Any:
            return report_check_launch(arguments, logic.settings.interpreter, slicer.util.startupEnvironment())

        self._check = ReportCheck(logic.activeSession, launch, lambda: slicer.app.temporaryPath)
        self._button = RequestButton(ui.reportCheckButton, self._start, self._say)
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._on_tick)
        ui.reportTextEdit.connect("textChanged()", self._on_text)
        table = ui.reportTable
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.verticalHeader().setDefaultSectionSize(22)
        table.horizontalHeader().setSectionResizeMode(REPORT, qt.QHeaderView.Stretch)
        for column, width in ((VERDICT, 94), (NAME, 140), (SCORE, 50), (RANK, 38)):
            table.setColumnWidth(column, width)
        table.connect("itemSelectionChanged()", self._show_evidence)
        table.connect("cellDoubleClicked(int,int)", lambda row, column: show_heatmap(self._shown[row]["name"]))
        self.refresh()

    def refresh(self) -> None:
        """Switch the button on and off, and drop a comparison whose scan is another by now."""
        problem = None
        if self._result() is None:
            problem = _("Score the scan first.")
        elif scene.volume_problem(self._volume()):
            problem = _("The scan of these scores is not in the scene any more.")
        elif not self._ui.reportTextEdit.plainText.strip():
            problem = _("Paste the report first.")
        self._button.enable(problem is None, problem or _("Read the report and compare it with the scores."))
        if self._checked is not None and not self._button.running:
            node, key, scores = self._checked
            if self._result() is None or self._volume() is None or self._volume() is not scene.find_scan(node, key):
                self._drop()
            elif self._shown and self._result()["scores"] != scores:
                self._say(_("The scores have changed since. Check the report again."))

    def clear(self) -> None:
        """Forget everything: the scene was closed, and the next one is another patient's."""
        self._cancel(_("The scene was closed."))
        self._drop()
        self._ui.reportTextEdit.setPlainText("")

    def on_node_removed(self, removed: Any) -> None:
        """Stop when the scan leaves the scene."""
        if self._checked is not None and removed is not None and removed.GetID() == self._checked[0]:
            self._cancel(_("The volume was removed while its report was checked."))
            self._drop()

    def _start(self) -> None:
        volume, result = self._volume(), self._result()
        try:
            scored = Scored(scene.volume_key(volume), result, self._scored_list(result), self._options(result))
        except BrgSAError as error:  # a scene file may hold anything
            self._say(str(error))
            return
        report, allowed = self._ui.reportTextEdit.plainText, self._ui.reportIdentifiersCheckBox.checked
        self._fill([])
        self._stop_reason = ""
        self._checked = (volume.GetID(), scored.key, result["scores"])

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            self._timer.start()
            return self._check.start(scored, report, allowed, done, failed, progress)

        self._button.run(send, self._on_done, self._on_failed)
        self.refresh()

    def _scored_list(self, result: Mapping[str, Any]) -> AbnormalityList:
        """The list as it was scored: the names of the result, with the thresholds of the rows under edit."""
        known = {row.name: row for row in self._rows()}
        rows = tuple(known.get(row["name"]) or Abnormality(row["name"]) for row in result["scores"])
        return AbnormalityList(str(result["settings"].get("abnormalities", "scored")), rows)

    def _options(self, result: Mapping[str, Any]) -> Options:
        """The worker's options, with the prompts and the kind of score of the result."""
        settings, made = self._logic.settings, result["settings"]
        kinds = str(made.get("prompts", "single")), str(made.get("score", "final"))
        return Options(settings.weights, settings.device, settings.precision, *kinds)

    def _on_tick(self) -> None:
        self._check.poll()
        if not self._check.busy:
            self._timer.stop()
            if self._stop_reason:
                self._say(self._stop_reason)
                self._stop_reason = ""
            self.refresh()

    def _on_done(self, answer: Mapping[str, Any]) -> None:
        if scene.find_scan(*self._checked[:2]) is None:
            self._checked = None
            self._say(_("The volume was changed or removed while its report was checked."))
            return
        rows = answer["abnormalities"]
        self._fill(sorted(rows, key=_order))
        self._say(_summary(rows))

    def _on_failed(self, code: str, message: str, more: Mapping[str, Any]) -> None:
        for words, panel_words in _REPLACED:
            message = message.replace(words, panel_words)
        self._say(message)

    def _cancel(self, reason: str) -> None:
        if self._button.running:
            self._stop_reason = reason
            self._button.cancel()

    def _drop(self) -> None:
        self._checked = None
        if self._shown:
            self._fill([])
            self._say(_("No report checked yet."))

    def _fill(self, rows: list[Mapping[str, Any]]) -> None:
        table, self._shown = self._ui.reportTable, rows
        table.clearSelection()
        table.rowCount = len(rows)
        for n, row in enumerate(rows):
            cells = {
                VERDICT: _verdicts().get(row["verdict"], row["verdict"]),
                NAME: row["name"],
                SCORE: "" if row["score"] is None else f"{row['score']:.3f}",
                RANK: "" if row["rank"] is None else str(row["rank"]),
                REPORT: ": ".join(filter(None, (_reports()[row["report"]], " ".join(row["evidence"])))),
            }
            for column, text in cells.items():
                item = qt.QTableWidgetItem(text)
                if column in (SCORE, RANK):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                elif column in (NAME, REPORT):
                    item.setToolTip(text)
                if column == VERDICT and row["verdict"] in DISAGREEMENTS:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                table.setItem(n, column, item)
        self._show_evidence()

    def _show_evidence(self) -> None:
        """What the report says about the selected row, in full."""
        selected = self._ui.reportTable.selectionModel().selectedRows() if self._shown else []
        row = self._shown[selected[0].row()] if selected else None
        text = ""
        if row is not None:
            parts = [_("“{sentence}”").format(sentence=sentence) for sentence in row["evidence"]]
            if row["threshold"] is not None:
                source = {"list": _("of the list"), "calibration": _("of the calibration")}[row["threshold_source"]]
                parts.append(_("Threshold {value} {source}.").format(value=f"{row['threshold']:.3f}", source=source))
            text = "\n".join([f"{row['name']}: {_reports()[row['report']]}", *parts])
        self._ui.reportEvidenceLabel.text = text

    def _on_text(self) -> None:
        self._ui.reportIdentifiersCheckBox.checked = False  # it was said about another text
        self.refresh()

    def _say(self, text: str) -> None:
        self._ui.reportLabel.text = text[:1].upper() + text[1:]


def _verdicts() -> dict[str, str]:
    return {
        "report only": _("report only"),
        "model only": _("model only"),
        "both": _("both"),
        "neither": _("neither"),
        "not calibrated": _("not calibrated"),
        "not read": _("not searched"),
        "not scored": _("not scored"),
    }


def _reports() -> dict[str | None, str]:
    return {"present": _("named"), "uncertain": _("in doubt"), "absent": _("denied"), None: _("not named")}


def _order(row: Mapping[str, Any]) -> tuple:
    """Disagreements first; without thresholds what the report names; then by rank."""
    places = ("report only", "model only", "not scored", "not calibrated", "both", "neither", "not read")
    return places.index(row["verdict"]), row["report"] not in NAMED, row["rank"] or 0


def _summary(rows: list[Mapping[str, Any]]) -> str:
    verdicts = [row["verdict"] for row in rows]
    lines = []
    if not any(row["report"] for row in rows):
        lines.append(_("The report names none of these abnormalities. The rules read English only."))
    if any(row["threshold"] is not None for row in rows):
        text = _("{report} only in the report, {model} only seen by the model, {both} in both, {neither} in neither.")
        counts = {name: verdicts.count(verdict) for name, verdict in _COUNTED.items()}
        lines.append(text.format(**counts))
    if count := verdicts.count("not calibrated"):
        lines.append(
            _(
                "Not calibrated: {n} abnormalities have no threshold, so nobody can say whether the model sees them; "
                "the rank of a score is not a finding."
            ).format(n=count)
        )
    if count := verdicts.count("not scored"):
        lines.append(_("{n} have no score: score the scan again and check once more.").format(n=count))
    return " ".join(lines)
