"""Pictures of the panel for the documentation: `python Testing/standins/panel/screenshots.py SCAN FOLDER`.

Made on the stand-in with the real worker, so the widgets are Qt's own; the slices beside the panel are drawn here.
"""

# ruff: noqa: E402 (the environment comes before the application)
import json
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

from brgsa.abnormalities import AbnormalityList

REPORT = (
    "There is a nodule in the upper lobe of the left lung. Emphysema cannot be excluded. A sliding hiatal hernia is "
    "seen. Calcified plaques are observed in the coronary arteries. There is no pleural effusion. A rib fracture is "
    "observed."
)


def main(scan, folder):
    folder = Path(folder)
    volume = slicer.util.loadVolume(scan)
    volume.SetName("CTChest")
    host = module_host.Host()
    host.window.resize(500, 1200)
    host.ui.scoreButton.click()
    host.pump(lambda: host.ui.progressBar.value > 450)
    host.picture(folder / "slicer-scoring.png")
    host.pump(lambda: host.ui.scoreButton.text == "Score")
    wide(host, volume).save(str(folder / "slicer-panel.png"))
    host.ui.resultTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: host.parameters.heatmap is not None)
    wide(host, volume).save(str(folder / "slicer-heatmap.png"))

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
    report_check(host, volume).save(str(folder / "slicer-report-check.png"))
    similar_cases(host, volume, Path(scan).resolve(), folder)  # the worker has a folder of its own
    host.close()


def similar_cases(host, volume, scan, folder):
    """The section "Similar cases" beside the scan and the case of an index that is most like it."""
    others = [str(path) for path in sorted(scan.parent.glob("*.nrrd")) if "label" not in path.name]
    index, done = str(Path(PRIVATE.name) / "index"), []
    session = host.logic.activeSession()
    session.start("index", done.append, lambda *why: done.append(why), lambda *_: None, inputs=others, index=index)
    host.pump(lambda: done)
    ui = host.ui
    for section in (ui.resultsCollapsibleButton, ui.setupCollapsibleButton, ui.logCollapsibleButton):
        section.collapsed = True
    ui.reportCollapsibleButton.collapsed, ui.similarCollapsibleButton.collapsed = True, False
    host.window.resize(500, 766)
    ui.indexLineEdit.text = index
    ui.similarScanButton.click()
    host.pump(lambda: "best" in ui.similarLabel.text)
    ui.similarTable.selectRow(0)
    ui.indexLineEdit.text = "/data/chest-ct-index"  # a path that says more than that of a temporary folder
    ui.similarTable.cellDoubleClicked.emit(0, 0)
    other = slicer.util.getNode(ui.similarTable.item(0, 1).text())
    slicer.app.processEvents()
    panel, side, gap = host.window.grab(), 380, 6
    picture = qt.QPixmap(panel.width() + 3 * (side + gap), 2 * side + gap)
    picture.fill(qt.QColor(35, 35, 35))
    painter = qt.QPainter()
    painter.begin(picture)
    painter.drawPixmap(0, 0, panel)
    for row, shown in enumerate((volume, other)):
        colours = ((236, 82, 70), (110, 176, 75), (237, 213, 76))
        for column, ((array, heat, spacing), colour) in enumerate(zip(planes(shown, None), colours, strict=True)):
            x, y = panel.width() + gap + column * (side + gap), row * (side + gap)
            painter.fillRect(x, y, side, side, qt.QColor(0, 0, 0))
            draw(painter, array, heat, spacing, x, y, side, side)
            painter.fillRect(x, y, side, 5, qt.QColor(*colour).lighter(100 + 40 * row))
    painter.end()
    picture.save(str(folder / "slicer-similar.png"))


def report_check(host, volume):
    """The section "Report check" with a made-up report and made-up thresholds, and a heat map of a disagreement."""
    ui = host.ui
    rows = [{**row.to_dict(), "threshold": 0.17} for row in AbnormalityList.preset("ct-rate-18")]
    host.panel.abnormality_rows.load_json(json.dumps({"name": "ct-rate-18", "rows": rows}))
    host.score()
    ui.setupCollapsibleButton.collapsed = ui.logCollapsibleButton.collapsed = True
    ui.reportCollapsibleButton.collapsed = False
    ui.reportTextEdit.setPlainText(REPORT)
    ui.reportCheckButton.click()
    host.pump(lambda: ui.reportTable.rowCount)
    host.parameters.heatmap = None
    ui.reportTable.selectRow(0)
    ui.reportTable.cellDoubleClicked.emit(0, 0)
    host.pump(lambda: host.parameters.heatmap is not None)
    return wide(host, volume)


def wide(host, volume):
    """The panel beside three slices of the scan, as Slicer's window has them."""
    slicer.app.processEvents()
    panel = host.window.grab()
    height, gap = panel.height(), 6
    axial, coronal, sagittal = planes(volume, host.parameters.heatmap)
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
    for (array, heat, spacing), x, y, width, tall, colour in places:
        painter.fillRect(x, y, width, tall, qt.QColor(0, 0, 0))
        draw(painter, array, heat, spacing, x, y, width, tall)
        painter.fillRect(x, y, width, 5, qt.QColor(*colour))
    chart(painter, host, left + side + gap, 0, side, side)
    painter.end()
    return picture


def planes(volume, heatmap):
    """Slices through the maximum of the heat map, or the middle: scan, map, pixel size (rows, columns)."""
    matrix = module_host.BrgSA.vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    array = slicer.util.arrayFromVolume(volume)
    heat = np.zeros(array.shape) if heatmap is None else slicer.util.arrayFromVolume(heatmap)
    spacing = list(reversed(volume.GetSpacing()))
    for axis in range(3):  # array axes K, J, I: let them grow Inferior, Posterior, Left
        column = [matrix.GetElement(row, 2 - axis) for row in range(3)]
        if max(column, key=abs) > 0:
            array, heat = np.flip(array, axis), np.flip(heat, axis)
    k, j, i = (size // 2 for size in heat.shape)
    if heatmap is not None:
        k, j, i = np.unravel_index(heat.argmax(), heat.shape)
    return (
        (array[k], heat[k], (spacing[1], spacing[2])),
        (array[:, j], heat[:, j], (spacing[0], spacing[2])),
        (array[:, :, i], heat[:, :, i], (spacing[0], spacing[1])),
    )


def draw(painter, array, heat, spacing, x, y, width, height):
    """Draw a slice in true proportions, with the heat map where the panel's threshold lets it through."""
    grey = np.repeat(np.clip((array.astype(float) + 1000) / 1400, 0, 1)[..., None], 3, axis=2)
    colour = np.stack([np.clip(2 * heat, 0, 1), np.clip(2 * heat - 0.8, 0, 1), 0.35 * (1 - heat)], axis=-1)
    cover = np.where(heat > 0.3, 0.4, 0.0)[..., None]
    rgb = np.ascontiguousarray(((1 - cover) * grey + cover * colour) * 255).astype(np.uint8)
    rows, columns = heat.shape
    image = qt.QImage(rgb.data, columns, rows, 3 * columns, qt.QImage.Format_RGB888)
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
