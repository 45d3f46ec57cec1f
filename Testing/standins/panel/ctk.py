"""The CTK widgets that the panel uses, for tests."""

# ruff: noqa: N801, N802, N815 (the names are those of CTK and Qt)
import qt


@qt.stand_in
class ctkCollapsibleButton(qt.QWidget):
    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(2, 24, 2, 2)

    def _get_text(self):
        return self._text

    def _set_text(self, value):
        self._text = value
        self.update()

    def _get_collapsed(self):
        return self._collapsed

    def _set_collapsed(self, value):
        self._collapsed = bool(value)
        for child in self.children():
            if child.isWidgetType():
                child.setVisible(not value)
        self.setMaximumHeight(24 if value else 16777215)
        self.contentsCollapsed.emit(self._collapsed)

    text = qt.Property(str, _get_text, _set_text)
    collapsed = qt.Property(bool, _get_collapsed, _set_collapsed)

    def showEvent(self, event):
        # the children exist only after the .ui file has set `collapsed`
        if self._collapsed:
            self._set_collapsed(True)

    def paintEvent(self, event):
        painter = qt.QPainter(self)
        width = qt.QWidget.width.fget(self)
        painter.fillRect(0, 0, width, 21, qt.QColor(214, 219, 226))
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(qt.QColor(40, 44, 52))
        painter.drawText(8, 15, ("\u25b8  " if self._collapsed else "\u25be  ") + self._text)
        painter.end()


@qt.stand_in
class ctkPathLineEdit(qt.QWidget):
    """Says `currentPathChanged` at every character, but not when it is emptied: then only `validInputChanged`."""

    currentPathChanged = qt.Signal(str)
    validInputChanged = qt.Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._edit = qt.QLineEdit(self)
        button = qt.QToolButton(self)
        button.setText("…")
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(button)
        self._edit.textChanged.connect(self._changed)

    def _changed(self, text):
        self.validInputChanged.emit(bool(text))
        if text:
            self.currentPathChanged.emit(text)

    def _get(self):
        return self._edit.text

    def _set(self, value):
        self._edit.setText(value)

    currentPath = qt.Property(str, _get, _set)


@qt.stand_in
class ctkSliderWidget(qt.QWidget):
    valueChanged = qt.Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = qt.QSlider(qt.Qt.Horizontal, self)
        self._slider.setRange(0, 1000)
        self._spin = qt.QDoubleSpinBox(self)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(self._from_slider)
        self._spin.valueChanged.connect(self._from_spin)

    def _from_slider(self, value):
        self._spin.value = self._spin.minimum + value / 1000 * (self._spin.maximum - self._spin.minimum)

    def _from_spin(self, value):
        span = self._spin.maximum - self._spin.minimum
        self._slider.blockSignals(True)
        self._slider.value = round(1000 * (value - self._spin.minimum) / span) if span else 0
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)


def _of_spin_box(name):
    return property(lambda self: getattr(self._spin, name), lambda self, value: setattr(self._spin, name, value))


for _name in ("value", "minimum", "maximum", "singleStep", "decimals"):
    setattr(ctkSliderWidget, _name, _of_spin_box(_name))


def __getattr__(name):
    """Other CTK classes, which Slicer's parameter node wrapper names without making one."""
    if name.startswith("ctk"):
        return type(name, (), {})
    raise AttributeError(name)
