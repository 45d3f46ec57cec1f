"""Questions to the user. An object of its own, so that a test can answer them."""

import qt
import slicer
from slicer.i18n import tr as _


class Dialogs:
    """Modal dialogs; every method returns an empty text or False when the user declines."""

    def open_file(self, title: str, filters: str) -> str:
        """A file to read."""
        return _path(qt.QFileDialog.getOpenFileName(None, title, "", filters))

    def save_file(self, title: str, suggestion: str, filters: str) -> str:
        """A file to write; existing files are confirmed by the dialog."""
        return _path(qt.QFileDialog.getSaveFileName(None, title, suggestion, filters))

    def choose_folder(self, title: str) -> str:
        """A folder."""
        return _path(qt.QFileDialog.getExistingDirectory(None, title))

    def confirm(self, question: str) -> bool:
        """Whether the user says yes."""
        return bool(slicer.util.confirmOkCancelDisplay(question))

    def accept_licence(self, name: str, licence: str, accepted: bool) -> bool:
        """Show a licence; True only when the user ticks and accepts it."""
        dialog = qt.QDialog(slicer.util.mainWindow())
        dialog.setWindowTitle(_("Licence of {name}").format(name=name))
        dialog.resize(620, 460)
        layout = qt.QVBoxLayout(dialog)
        text = qt.QPlainTextEdit()
        text.setPlainText(licence)
        text.setReadOnly(True)
        layout.addWidget(text)
        tick = qt.QCheckBox(_("I have read the licence and accept it."))
        tick.setChecked(accepted)
        layout.addWidget(tick)
        # PythonQt takes flags in a constructor for another argument, here the orientation: a box without buttons.
        buttons = qt.QDialogButtonBox()
        buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
        buttons.connect("accepted()", dialog.accept)
        buttons.connect("rejected()", dialog.reject)
        layout.addWidget(buttons)
        return bool(dialog.exec_()) and tick.checked


def clipboard_text() -> str:
    """The text in the clipboard."""
    return qt.QApplication.clipboard().text()


def set_clipboard_text(text: str) -> None:
    """Put text into the clipboard."""
    qt.QApplication.clipboard().setText(text)


def _path(answer) -> str:
    # PythonQt returns the path, PySide6 the path and the chosen filter.
    return str(answer[0] if isinstance(answer, tuple) else answer)
