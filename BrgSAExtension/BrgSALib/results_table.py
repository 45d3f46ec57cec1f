"""The table of scores: sorted in Python, with a bar in each row and a mark where the threshold is."""

from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from .exports import bar_range

NAME, SCORE, BAR, PROBABILITY, PRESENT = range(5)
BAR_WIDTH, BAR_HEIGHT = 110, 12
_KEYS = {NAME: "name", SCORE: "score", BAR: "score", PROBABILITY: "probability", PRESENT: "positive"}


class ResultsTable:
    """The table in the section "Results".

    Args:
        table: the widget.
        chosen: called with the name of an abnormality whose row was double-clicked.
    """

    def __init__(self, table: Any, chosen: Callable[[str], None]):
        self._table = table
        self._scores: list[Mapping[str, Any]] = []
        self._column, self._descending = SCORE, True
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.verticalHeader().setDefaultSectionSize(22)
        for column, width in ((SCORE, 62), (BAR, BAR_WIDTH + 14), (PROBABILITY, 80), (PRESENT, 62)):
            table.setColumnWidth(column, width)
        header = table.horizontalHeader()
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.sectionClicked.connect(self._on_heading)
        table.connect("cellDoubleClicked(int,int)", lambda row, column: chosen(self.names()[row]))

    def names(self) -> list[str]:
        """The abnormalities in the order shown."""
        return [row["name"] for row in self._scores]

    def selected(self) -> str | None:
        """The abnormality of the selected row, or None."""
        rows = self._table.selectionModel().selectedRows()
        return self.names()[rows[0].row()] if rows else None

    def show(self, scores: list[Mapping[str, Any]]) -> None:
        """Show scores as `ScanScores.to_dict()["scores"]` has them, in the order last chosen."""
        self._scores = list(scores)
        calibrated = any(row["probability"] is not None for row in scores)
        self._table.setColumnHidden(PROBABILITY, not calibrated)
        self._table.setColumnHidden(PRESENT, all(row["positive"] is None for row in scores))
        self._fill()

    def sort(self, column: int, descending: bool) -> None:
        """Sort by a column; rows without a value come last."""
        self._column, self._descending = column, descending
        self._fill()

    def _on_heading(self, column: int) -> None:
        self.sort(column, not self._descending if column == self._column else column != NAME)

    def _fill(self) -> None:
        key = _KEYS[self._column]
        known = [row for row in self._scores if row[key] is not None]
        known.sort(key=lambda row: row[key].casefold() if key == "name" else row[key], reverse=self._descending)
        self._scores = known + [row for row in self._scores if row[key] is None]
        order = qt.Qt.DescendingOrder if self._descending else qt.Qt.AscendingOrder
        self._table.horizontalHeader().setSortIndicator(self._column, order)
        low, high = bar_range(self._scores)
        words = {True: _("yes"), False: _("no"), None: ""}
        self._table.setUpdatesEnabled(False)
        try:
            self._table.rowCount = len(self._scores)
            for n, row in enumerate(self._scores):
                self._text(n, NAME, row["name"])
                self._text(n, SCORE, f"{row['score']:.3f}", number=True)
                self._text(
                    n, PROBABILITY, "" if row["probability"] is None else f"{row['probability']:.0%}", number=True
                )
                self._text(n, PRESENT, words[row["positive"]])
                bar = self._text(n, BAR, "")
                bar.setData(qt.Qt.DecorationRole, _bar(row, low, high))
                if row["threshold"] is not None:
                    bar.setToolTip(_("threshold {value}").format(value=f"{row['threshold']:.3f}"))
        finally:
            self._table.setUpdatesEnabled(True)

    def _text(self, row: int, column: int, text: str, number: bool = False) -> Any:
        item = qt.QTableWidgetItem(text)
        if number:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        elif column == NAME:
            item.setToolTip(text)
        self._table.setItem(row, column, item)
        return item


def _bar(row: Mapping[str, Any], low: float, high: float) -> Any:
    """A picture of a score between `low` and `high`, grown from zero, with its threshold."""

    def position(value: float) -> int:
        return round((BAR_WIDTH - 1) * (value - low) / (high - low))

    picture = qt.QPixmap(BAR_WIDTH, BAR_HEIGHT)
    picture.fill(qt.QColor(232, 235, 240))
    painter = qt.QPainter()
    painter.begin(picture)
    zero, end = position(0.0), position(row["score"])
    # orange and blue stay apart for colour-blind readers; the column "Present" says the same in words
    colour = qt.QColor(213, 94, 0) if row["positive"] else qt.QColor(68, 119, 170)
    painter.fillRect(min(zero, end), 0, max(1, abs(end - zero)), BAR_HEIGHT, colour)
    if low < 0:
        painter.fillRect(zero, 0, 1, BAR_HEIGHT, qt.QColor(90, 90, 90))
    if row["threshold"] is not None:
        painter.fillRect(min(position(row["threshold"]), BAR_WIDTH - 2), 0, 2, BAR_HEIGHT, qt.QColor(20, 20, 20))
    painter.end()
    return picture
