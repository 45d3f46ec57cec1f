"""Starts the stand-in with the BrgSA module and gives a test its panel."""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
STANDIN = Path(__file__).resolve().parent
EXTENSION = STANDIN.parents[2] / "BrgSAExtension"
if str(STANDIN) not in sys.path:
    sys.path.insert(0, str(STANDIN))

import qt  # noqa: E402
import slicer  # noqa: E402
import slicer_app  # noqa: E402

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

    def pump(self, until=lambda: False, seconds=60.0):
        """Run the event loop until a condition holds; returns how long it took."""
        start = time.monotonic()
        while not until():
            slicer.app.processEvents()
            if time.monotonic() - start > seconds:
                raise AssertionError(f"nothing happened for {seconds} s; status: {self.status!r}\n{self.log}")
            time.sleep(0.002)
        slicer.app.processEvents()
        return time.monotonic() - start

    def score(self, seconds=120.0):
        """Press Score and wait for the end."""
        self.ui.scoreButton.click()
        return self.pump(lambda: self.ui.scoreButton.text == "Score", seconds)

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
