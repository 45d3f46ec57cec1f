"""Starts the stand-in with the BrgSA module and gives a test its panel."""

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
STANDIN = Path(__file__).resolve().parent
EXTENSION = STANDIN.parents[2] / "BrgSAExtension"
for folder in (STANDIN.parent, STANDIN):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import qt  # noqa: E402
import slicer  # noqa: E402
import slicer_app  # noqa: E402
from waiting import wait  # noqa: E402

if not hasattr(slicer, "app"):
    slicer_app.install({"BrgSA": EXTENSION / "BrgSA.py"})
import BrgSA  # noqa: E402


class Host:
    """The panel in a window, with what a user can do to it."""

    def __init__(self, width=480):
        self.window = slicer.qMRMLWidget()
        self.window.setLayout(qt.QVBoxLayout())
        self.window.layout().setContentsMargins(6, 6, 6, 6)
        self.window.setMRMLScene(slicer.mrmlScene)
        self.widget = BrgSA.BrgSAWidget(self.window)
        self.widget.setup()
        self.window.resize(width, 1000)
        self.window.show()
        self.ui, self.panel, self.logic = self.widget.ui, self.widget.panel, self.widget.logic

    @property
    def parameters(self):
        return self.widget._parameterNode

    def pump(self, until):
        """Run the event loop until a condition holds."""
        try:
            wait(until, slicer.app.processEvents)
        except TimeoutError as error:
            raise AssertionError(f"{error}; status: {self.status!r}\n{self.log}") from error
        slicer.app.processEvents()

    def score(self):
        """Press Score and wait for the end."""
        self.ui.scoreButton.click()
        self.pump(lambda: self.ui.scoreButton.text == "Score")

    @property
    def status(self):
        return self.ui.statusLabel.text

    @property
    def log(self):
        return self.ui.logTextEdit.plainText

    def column(self, number, table=None):
        table = table or self.ui.resultTable
        return [table.item(row, number).text() for row in range(table.rowCount)]

    def picture(self, path):
        """Write a picture of the panel."""
        slicer.app.processEvents()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.window.grab().save(str(path))

    def close(self):
        self.widget.cleanup()
        self.window.close()
        slicer.mrmlScene.Clear(0)
