"""Pictures of the panel for the documentation: `python Testing/standin/screenshots.py SCAN FOLDER`.

Made on the stand-in with the real worker, so the widgets are Qt's own; the slices beside the panel are drawn here.
"""

# ruff: noqa: E402 (the environment comes before the application)
import os
import sys
import tempfile
from pathlib import Path

PRIVATE = tempfile.TemporaryDirectory(prefix="brgsa-pictures-")  # removed when the process ends
os.environ["BRGSA_CACHE"] = os.environ["XDG_CONFIG_HOME"] = PRIVATE.name
sys.path.insert(0, str(Path(__file__).resolve().parent))

import module_host
import numpy as np
import qt
import slicer


def main(scan, folder):
    folder = Path(folder)
    volume = slicer.util.loadVolume(scan)
    volume.SetName("CTChest")
    host = module_host.Host()
    host.window.resize(500, 1010)
    host.ui.scoreButton.click()
    host.pump(lambda: host.ui.progressBar.value > 450)
    host.picture(folder / "slicer-scoring.png")
    host.pump(lambda: host.ui.scoreButton.text == "Score", 300)
    wide(host, volume).save(str(folder / "slicer-panel.png"))

    rows = host.panel.abnormality_rows
    rows.edit(1, prompt="calcified plaques of the aorta and its branches")
    rows.edit(0, on=False)
    rows.edit(5, name="Emphysema")
    rows.add(["Rib fracture"], 5)
    host.pump(lambda: "Rib fracture" in host.column(0))
    host.picture(folder / "slicer-edit.png")

    host.panel.set_parameters(host.parameters)
    for section in (host.ui.inputCollapsibleButton, host.ui.abnormalitiesCollapsibleButton):
        section.collapsed = True
    host.ui.resultsCollapsibleButton.collapsed = True
    host.ui.setupCollapsibleButton.collapsed = host.ui.logCollapsibleButton.collapsed = False
    host.ui.doctorButton.click()
    host.pump(lambda: host.ui.doctorTextEdit.plainText)
    host.picture(folder / "slicer-setup.png")
    host.close()


def wide(host, volume):
    """The panel beside three slices of the scan, as Slicer's window has them."""
    slicer.app.processEvents()
    panel = host.window.grab()
    height, gap = panel.height(), 6
    axial, coronal, sagittal = planes(volume)
    side = (height - gap) // 2
    picture = qt.QPixmap(panel.width() + 2 * (side + gap), height)
    picture.fill(qt.QColor(35, 35, 35))
    painter = qt.QPainter()
    painter.begin(picture)
    painter.drawPixmap(0, 0, panel)
    left = panel.width() + gap
    places = (
        (axial, left, 0, side, side, (236, 82, 70)),
        (coronal, left, side + gap, side, side, (110, 176, 75)),
        (sagittal, left + side + gap, side + gap, side, side, (237, 213, 76)),
    )
    for (array, spacing), x, y, width, tall, colour in places:
        painter.fillRect(x, y, width, tall, qt.QColor(0, 0, 0))
        draw(painter, array, spacing, x, y, width, tall)
        painter.fillRect(x, y, width, 5, qt.QColor(*colour))
    chart(painter, host, left + side + gap, 0, side, side)
    painter.end()
    return picture


def planes(volume):
    """The middle slices, each with its pixel size (rows, columns); the scan's axes are taken as they are nearest."""
    matrix = slicer.vtk.vtkMatrix4x4() if hasattr(slicer, "vtk") else module_host.BrgSA.vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    array, spacing = slicer.util.arrayFromVolume(volume), list(reversed(volume.GetSpacing()))
    for axis in range(3):  # array axes K, J, I: let them grow Inferior, Posterior, Left
        column = [matrix.GetElement(row, 2 - axis) for row in range(3)]
        wanted = {2: -1, 1: -1, 0: -1}[max(range(3), key=lambda row: abs(column[row]))]
        if np.sign(max(column, key=abs)) != wanted:
            array = np.flip(array, axis)
    k, j, i = (size // 2 for size in array.shape)
    return (
        (array[k], (spacing[1], spacing[2])),
        (array[:, j], (spacing[0], spacing[2])),
        (array[:, :, i], (spacing[0], spacing[1])),
    )


def draw(painter, array, spacing, x, y, width, height):
    """Draw a slice with a soft-tissue and lung window, as large as fits, in its true proportions."""
    grey = np.ascontiguousarray((np.clip((array.astype(float) + 1000) / 1400, 0, 1) * 255).astype(np.uint8))
    rows, columns = grey.shape
    image = qt.QImage(grey.data, columns, rows, columns, qt.QImage.Format_Grayscale8)
    scale = min((width - 12) / (columns * spacing[1]), (height - 17) / (rows * spacing[0]))
    size = round(columns * spacing[1] * scale), round(rows * spacing[0] * scale)
    scaled = image.scaled(*size, qt.Qt.IgnoreAspectRatio, qt.Qt.SmoothTransformation)
    painter.drawImage(x + (width - size[0]) // 2, y + 5 + (height - 5 - size[1]) // 2, scaled)


def chart(painter, host, x, y, width, height):
    """Draw the bar chart that the plot node holds."""
    table = host.parameters.resultTable.GetTable()
    count = table.GetNumberOfRows()
    scores = [table.GetColumnByName("Score").GetValue(n) for n in range(count)]
    painter.fillRect(x, y, width, height, qt.QColor(255, 255, 255))
    painter.fillRect(x, y, width, 5, qt.QColor(132, 147, 172))
    painter.setPen(qt.QColor(40, 40, 40))
    painter.drawText(x + 14, y + 28, f"{host.parameters.resultChart.GetTitle()}: score (cosine)")
    step, left = (height - 52) / count, x + 236
    for n, score in enumerate(scores):
        top = round(y + 44 + n * step)
        name = table.GetColumnByName("Abnormality").GetValue(n)
        painter.drawText(x + 10, top + round(step * 0.66), name)
        length = round((width - 250) * max(score, 0) / max(scores))
        painter.fillRect(left, top + 3, length, round(step) - 6, qt.QColor(69, 120, 171))


if __name__ == "__main__":
    main(*sys.argv[1:3])
