"""The abnormality editor: shows `AbnormalityRows` in a table and turns clicks into changes of them."""

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from brgsa.abnormalities import AbnormalityList, describe_presets
from brgsa.errors import BrgSAError

from .abnormality_rows import AbnormalityRows
from .dialogs import Dialogs, clipboard_text

ON, NAME, PROMPT = range(3)
FIRST_PRESET = "ct-rate-18"
FILTERS = "Abnormality lists (*.json *.csv *.txt)"


class AbnormalityTable:
    """The section "Abnormalities" of the panel.

    Args:
        ui: the panel's widgets by name.
        dialogs: for file names.
        changed: called after every change of the list.
    """

    def __init__(self, ui: Any, dialogs: Dialogs, changed: Callable[[], None]):
        self.rows = AbnormalityRows(self._on_rows_changed)
        self._ui = ui
        self._table = ui.abnormalityTable
        self._dialogs = dialogs
        self._changed = changed
        self._filling = False
        self._table.setColumnWidth(ON, 34)
        self._table.setColumnWidth(NAME, 165)
        self._table.verticalHeader().setDefaultSectionSize(22)
        for preset in describe_presets():
            ui.presetComboBox.addItem(f"{preset['preset']} ({preset['abnormalities']})", preset["preset"])
            ui.presetComboBox.setItemData(ui.presetComboBox.count - 1, preset["description"], qt.Qt.ToolTipRole)
        ui.presetComboBox.connect("activated(int)", lambda index: self.load_preset(self._preset(index)))
        for button, slot in (
            (ui.addButton, self._add),
            (ui.removeButton, lambda: self.rows.remove(self.selected())),
            (ui.duplicateButton, self._duplicate),
            (ui.upButton, lambda: self._move(-1)),
            (ui.downButton, lambda: self._move(1)),
            (ui.allOnButton, lambda: self.rows.switch(not all(row.on for row in self.rows.rows))),
            (ui.pasteButton, self._paste),
            (ui.undoButton, lambda: self.rows.undo()),
            (ui.importListButton, self._import),
            (ui.exportListButton, self._export),
            (ui.resetListButton, lambda: self.load_preset(self._preset(ui.presetComboBox.currentIndex))),
        ):
            button.connect("clicked(bool)", lambda checked=False, slot=slot: slot())
        self._table.connect("cellChanged(int,int)", self._on_cell_changed)
        self._table.connect("itemSelectionChanged()", self._refresh_buttons)

    def load_preset(self, name: str) -> None:
        """Replace the list by one that comes with BrgSA."""
        self.rows.load(AbnormalityList.preset(name))

    def restore(self, text: str) -> None:
        """Show the list that a scene holds, or the first preset where it holds none."""
        if text and text == self.rows.to_json():
            return  # coming back to the module is no reason to lose the steps of undo
        self.rows.load_json(text)
        if not self.rows.rows:
            self.rows.load(AbnormalityList.preset(FIRST_PRESET))
        index = self._ui.presetComboBox.findData(self.rows.preset)
        if index >= 0:
            self._ui.presetComboBox.setCurrentIndex(index)

    def selected(self) -> list[int]:
        """Positions of the selected rows."""
        return sorted(index.row() for index in self._table.selectionModel().selectedRows())

    def say(self, text: str = "") -> None:
        """Write a sentence under the table; without one, the number of abnormalities."""
        wrong = self.rows.problems()
        on = sum(row.on for row in self.rows.rows)
        count = _("{n} abnormalities, {on} on.").format(n=len(self.rows), on=on)
        if wrong:
            first = min(wrong)
            count += " " + _("Row {row} is left out: {why}").format(row=first + 1, why=wrong[first])
        self._ui.abnormalityLabel.text = " ".join(part for part in (text, count) if part)

    def _preset(self, index: int) -> str:
        return self._ui.presetComboBox.itemData(index) or FIRST_PRESET

    def _on_rows_changed(self) -> None:
        self._fill()
        self._changed()

    def _fill(self) -> None:
        """Write the rows into the table. Items are kept, because a cell that was just edited is one of them."""
        self._filling = True
        try:
            rows, wrong = self.rows.rows, self.rows.problems()
            self._table.rowCount = len(rows)
            # readable on light and dark themes
            grey, pale, dark = (qt.QBrush(qt.QColor(*rgb)) for rgb in ((128, 128, 128), (255, 221, 214), (70, 20, 10)))
            for n, row in enumerate(rows):
                on, name, prompt = (self._item(n, column) for column in (ON, NAME, PROMPT))
                on.setCheckState(qt.Qt.Checked if row.on else qt.Qt.Unchecked)
                name.setText(row.name)
                prompt.setText(row.shown_prompt)
                for item in (on, name, prompt):
                    item.setBackground(pale if n in wrong else qt.QBrush())
                    item.setForeground(dark if n in wrong else qt.QBrush())
                    item.setToolTip(wrong.get(n, ""))
                if not row.prompt and n not in wrong:
                    prompt.setForeground(grey)
        finally:
            self._filling = False
        self.say()
        self._refresh_buttons()

    def _item(self, row: int, column: int) -> Any:
        item = self._table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            if column == ON:
                item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            self._table.setItem(row, column, item)
        return item

    def _refresh_buttons(self) -> None:
        ui, chosen = self._ui, self.selected()
        ui.removeButton.enabled = bool(chosen)
        for button in (ui.duplicateButton, ui.upButton, ui.downButton):
            button.enabled = len(chosen) == 1
        ui.undoButton.enabled = self.rows.can_undo

    def _on_cell_changed(self, row: int, column: int) -> None:
        if self._filling or row >= len(self.rows):
            return
        item = self._table.item(row, column)
        if column == ON:
            self.rows.edit(row, on=item.checkState() == qt.Qt.Checked)
        else:
            self.rows.edit(row, **{"name" if column == NAME else "prompt": " ".join(item.text().split())})

    def _add(self) -> None:
        row = self.rows.add_blank()
        self._table.setCurrentCell(row, NAME)
        self._table.editItem(self._table.item(row, NAME))

    def _duplicate(self) -> None:
        self._table.selectRow(self.rows.duplicate(self.selected()[0]))

    def _move(self, by: int) -> None:
        self._table.selectRow(self.rows.move(self.selected()[0], by))

    def _paste(self) -> None:
        lines = [line for line in clipboard_text().splitlines() if line.strip()]
        added = self.rows.add(lines, max(self.selected(), default=len(self.rows) - 1))
        skipped = len(lines) - len(added)
        text = _("{n} added.").format(n=len(added)) if lines else _("The clipboard holds no text.")
        self.say(text + (" " + _("{n} were there already.").format(n=skipped) if skipped else ""))

    def _import(self) -> None:
        path = self._dialogs.open_file(_("Import abnormality list"), FILTERS)
        if path:
            try:
                self.rows.load(AbnormalityList.read(path))
            except BrgSAError as error:
                self.say(str(error))

    def _export(self) -> None:
        path = self._dialogs.save_file(_("Export abnormality list"), f"{self.rows.name}.json", FILTERS)
        if path:
            try:
                lost = self.rows.to_list(only_on=False).write(path)
            except BrgSAError as error:
                self.say(str(error))
                return
            note = _("This format cannot hold: {names}.").format(names=", ".join(lost)) if lost else ""
            self.say(_("Written to {path}.").format(path=path) + (" " + note if note else ""))
