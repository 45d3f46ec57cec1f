"""The section "Similar cases": searches an index by the scan or by words and shows a hit beside the scan."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from brgsa.worker.protocol import NO_SCAN

from . import scan_source, scene, views
from .dialogs import Dialogs
from .request_button import RequestButton
from .session import LICENCE, Done, Failed, Progress, Stop
from .worker_client import ENDED

RANK, CASE, SCORE, NOTE = range(4)


class SimilarSection:
    """Wires the widgets of the section.

    Args:
        ui: the panel's widgets by name.
        logic: a `BrgSALogic`.
        dialogs: questions to the user.
        volume: gives the chosen scan, or None.
        ask_licence: shows the licence of the weights.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        dialogs: Dialogs,
        volume: Callable[[], Any],
        ask_licence: Callable[[], None],
    ):
        self._ui, self._logic, self._dialogs = ui, logic, dialogs
        self._volume, self._ask_licence = volume, ask_licence
        self._hits: list[Mapping[str, Any]] = []
        self._layout = 0  # before a second scan was shown
        ui.indexLineEdit.text = logic.settings.index
        ui.indexLineEdit.connect("textChanged(QString)", self._on_index)
        ui.wordsLineEdit.connect("textChanged(QString)", lambda text: self.refresh())
        self._by_scan = RequestButton(ui.similarScanButton, self._search_by_scan, self._say)
        self._by_words = RequestButton(ui.similarWordsButton, self._search_by_words, self._say)
        self._update = RequestButton(ui.updateIndexButton, self._update_index, self._say)
        for button, slot in (
            (ui.chooseIndexButton, self._choose_index),
            (ui.loadBesideButton, self._load_selected),
            (ui.oneScanButton, self._show_one_scan),
        ):
            button.connect("clicked(bool)", lambda checked=False, slot=slot: slot())
        table = ui.similarTable
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.verticalHeader().setDefaultSectionSize(22)
        table.horizontalHeader().setSectionResizeMode(CASE, qt.QHeaderView.Stretch)
        for column, width in ((RANK, 40), (SCORE, 70), (NOTE, 70)):
            table.setColumnWidth(column, width)
        table.connect("itemSelectionChanged()", self.refresh)
        table.connect("cellDoubleClicked(int,int)", lambda row, column: self._load(row))
        self.refresh()

    def refresh(self) -> None:
        """Switch the buttons on and off, and say why."""
        ui = self._ui
        busy = any(button.running for button in (self._by_scan, self._by_words, self._update))
        missing = None if self._index() else _("Choose the folder of an index first.")
        if missing is None and not Path(self._index()).is_absolute():
            missing = _("Write the whole path of the index: the worker has a working folder of its own.")
        if busy:
            missing = _("Wait until the other request has ended.")
        problem = missing or scene.volume_problem(self._volume())
        self._by_scan.enable(problem is None, problem or _("Find the cases of the index that are most like the scan."))
        words = missing or (None if ui.wordsLineEdit.text.strip() else _("Write a phrase first."))
        self._by_words.enable(words is None, words or _("Find the cases of the index that fit the words best."))
        update = _(
            "Choose a folder with scans to add to the index, which is made where there is none; as brgsa index does."
        )
        self._update.enable(missing is None, missing or update)
        ui.loadBesideButton.enabled = self._volume() is not None and self._row() is not None
        ui.oneScanButton.enabled = self._layout != 0

    def _search_by_scan(self) -> None:
        volume = self._volume()

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            values = {"source": source} if (source := scan_source.origin(volume)) else {}
            return self._logic.similar(volume, done, failed, progress, **self._query(), **values)

        self._search(self._by_scan, send)

    def _search_by_words(self) -> None:
        text = self._ui.wordsLineEdit.text.strip()

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            return self._logic.similar(None, done, failed, progress, text=text, **self._query())

        self._search(self._by_words, send)

    def _query(self) -> dict[str, Any]:
        return {"index": self._index(), "top": self._ui.similarCountSpinBox.value}

    def _search(self, button: RequestButton, send: Callable[[Done, Failed, Progress], Stop]) -> None:
        self._fill([])

        def found(answer: Mapping[str, Any]) -> None:
            self._fill(answer["hits"])
            lines = [_("The best {n} of {all} cases.").format(n=len(answer["hits"]), all=answer["scans"])]
            if answer["left_out"]:
                lines.append(_("The scan itself is in the index and was left out."))
            lines += answer["notes"]
            if answer["notice"]:
                lines.append(_("Not for patients: {notice}.").format(notice=answer["notice"].rstrip(".")))
            self._say(" ".join(lines))
            self.refresh()

        button.run(send, found, self._failed)
        self.refresh()

    def _update_index(self) -> None:
        folder = self._dialogs.choose_folder(_("Folder with scans for the index"))
        if not folder:
            return

        def send(done: Done, failed: Failed, progress: Progress) -> Stop:
            return self._logic.updateIndex(folder, self._index(), done, failed, progress)

        def updated(answer: Mapping[str, Any]) -> None:
            text = _("{n} cases in the index, {added} of them new.").format(
                n=answer["scans"], added=answer["added"] + answer["changed"]
            )
            if failures := answer["failures"]:
                first = f"{failures[0]['case']}: {failures[0]['reason']}"
                left_out = _("{n} were refused or could not be read, the first: {what}")
                text += " " + left_out.format(n=len(failures), what=first)
            self._say(text)
            self.refresh()

        self._update.run(send, updated, self._failed)
        self.refresh()

    def _failed(self, code: str, message: str, more: Mapping[str, Any]) -> None:
        if code in (NO_SCAN, ENDED):
            message = _("Score this scan first: the search uses its embedding.")
        self._say(message)
        self.refresh()
        if code == LICENCE:
            self._ask_licence()

    def _fill(self, hits: list[Mapping[str, Any]]) -> None:
        table, self._hits = self._ui.similarTable, list(hits)
        table.rowCount = len(hits)
        for row, hit in enumerate(hits):
            texts = {RANK: str(hit["rank"]), CASE: hit["case"], SCORE: f"{hit['score']:.3f}"}
            texts[NOTE] = ", ".join([_("missing")] * hit["missing"] + [_("forced")] * hit.get("forced", False))
            for column, text in texts.items():
                item = qt.QTableWidgetItem(text)
                if column in (RANK, SCORE):
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                item.setToolTip(hit["path"])
                table.setItem(row, column, item)
        self.refresh()

    def _row(self) -> int | None:
        rows = self._ui.similarTable.selectionModel().selectedRows() if self._hits else []
        return rows[0].row() if rows else None

    def _load_selected(self) -> None:
        row = self._row()
        if row is not None:
            self._load(row)

    def _load(self, row: int) -> None:
        """Show a hit beside the scan; a DICOM folder is asked about first, because it may hold several series."""
        hit, volume = self._hits[row], self._volume()
        path = Path(hit["path"])
        if volume is None:
            self._say(_("Choose a scan to show the case beside."))
        elif not path.exists():
            self._say(_("{case} is no longer at {path}. Update the index.").format(case=hit["case"], path=path))
        elif path.is_dir():
            self._say(_("Looking for the series…"))
            self._logic.activeSession().ask(
                "series",
                lambda answer: self._show_beside(hit, answer["files"][0]),
                self._failed,
                path=str(path),
                series=hit["series"],
            )
        else:
            self._show_beside(hit, str(path))

    def _show_beside(self, hit: Mapping[str, Any], path: str) -> None:
        volume = self._volume()
        try:
            other = self._loaded(path) or slicer.util.loadVolume(path, {"name": hit["case"], "show": False})
        except RuntimeError as error:
            self._say(_("{case} cannot be loaded ({reason}).").format(case=hit["case"], reason=error))
            return
        other.SetAttribute(views.BESIDE_ATTRIBUTE, path)
        views.same_window(other, volume)
        before = views.show_beside(volume, other)
        self._layout = self._layout or before
        self._say(
            _(
                "Above: {scan}. Below: {case}, rank {rank}. Similar for the model; that is not the same diagnosis."
            ).format(scan=volume.GetName(), case=hit["case"], rank=hit["rank"])
        )
        self.refresh()

    def _loaded(self, path: str) -> Any:
        """The volume node of a hit that was loaded before, or None."""
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node.GetAttribute(views.BESIDE_ATTRIBUTE) == path:
                return node
        return None

    def _show_one_scan(self) -> None:
        views.set_layout(self._layout)
        self._layout = 0
        self.refresh()

    def _choose_index(self) -> None:
        if folder := self._dialogs.choose_folder(_("Folder of the index")):
            self._ui.indexLineEdit.text = folder

    def _on_index(self, text: str) -> None:
        self._logic.settings.index = text.strip()
        self.refresh()

    def _index(self) -> str:
        return self._ui.indexLineEdit.text.strip()

    def _say(self, text: str) -> None:
        self._ui.similarLabel.text = text[:1].upper() + text[1:]
