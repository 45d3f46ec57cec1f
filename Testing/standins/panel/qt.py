"""Slicer's `qt` module for tests, made from PySide6.

PythonQt, which Slicer uses, differs from PySide6 in habits that module code relies on: a Qt property is an attribute,
signals connect by their signature as text, and an unknown attribute of a widget is an error. This module gives the
PySide6 classes these habits, so that code which would fail in Slicer fails here.
"""

import ctypes
import inspect
import sys

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_MODULES = (QtCore, QtGui, QtWidgets)

if sys.version_info < (3, 12):
    # PySide6 6.12 takes a reference from None at each call of a method without result (measured with sys.getrefcount);
    # after some hundred thousand calls Python aborts. It takes some from True and False, too, which ends in an abort
    # when Python ends. From 3.12 on these have no count. Give them enough for any test.
    for _constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(_constant)).value += 1 << 40

for _module in (*_MODULES, QtUiTools):
    # dir() and not vars(): PySide6 makes its classes when they are first asked for.
    globals().update({_name: getattr(_module, _name) for _name in dir(_module) if not _name.startswith("_")})

# Getters that PythonQt offers as methods too, because a method of the same name exists besides the property.
_METHODS = {"sizeHint", "minimumSizeHint", "singleShot"}


def _as_attribute(name, getter):
    def read(self):
        return getter(self) if callable(getter) else QtCore.QObject.property(self, name)

    def write(self, value):
        if not QtCore.QObject.setProperty(self, name, value):
            raise AttributeError(f"the Qt property {name!r} does not take {value!r}")

    return property(read, write)


def properties_as_attributes(cls):
    """Replace the getters of Qt properties that `cls` itself declares."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        present = inspect.getattr_static(cls, name, None)
        if name not in _METHODS and not isinstance(present, (property, QtCore.Property)):
            setattr(cls, name, _as_attribute(name, getattr(cls, name, None)))


for _module in _MODULES:
    for _name in dir(_module):
        _class = getattr(_module, _name)
        if isinstance(_class, type) and issubclass(_class, QtCore.QObject):
            properties_as_attributes(_class)
QtCore.QObject.name = QtCore.QObject.objectName
QtCore.QObject.className = lambda self: self.metaObject().className()
for _class in (QtWidgets.QDialog, QtWidgets.QMenu, QtCore.QEventLoop):
    _class.exec_ = _class.exec


def _connect(self, signature, slot):
    getattr(self, signature.partition("(")[0]).connect(slot)
    return True


def _disconnect(self, signature, slot):
    getattr(self, signature.partition("(")[0]).disconnect(slot)
    return True


def _strict(base):
    def set_attribute(self, name, value):
        static = inspect.getattr_static(type(self), name, None)
        if "wraps_cpp" in type(self).__dict__ and not isinstance(static, (property, QtCore.Property)):
            raise AttributeError(f"{type(self).__name__} has no property {name!r}")
        # base's own, because object.__setattr__ crashes on objects that C++ owns
        base.__setattr__(self, name, value)

    return set_attribute


WIDGETS = {}  # class name in a .ui file: class to make


def stand_in(cls):
    """Decorator: give `cls` PythonQt's habits and let .ui files use it under its name."""
    properties_as_attributes(cls)
    # In the class's own namespace: PySide6 does not see an inherited or patched `connect`.
    cls.connect, cls.disconnect = _connect, _disconnect
    WIDGETS[cls.__name__] = cls
    return cls


_STRICT = (
    "QPushButton",
    "QToolButton",
    "QCheckBox",
    "QComboBox",
    "QLineEdit",
    "QPlainTextEdit",
    "QSpinBox",
    "QDoubleSpinBox",
    "QSlider",
    "QLabel",
    "QProgressBar",
    "QTableWidget",
    "QTimer",
    "QDialog",
    "QDialogButtonBox",
)
for _name in _STRICT:
    _base = globals()[_name]
    globals()[_name] = stand_in(type(_name, (_base,), {"__setattr__": _strict(_base), "wraps_cpp": True}))


_box = QDialogButtonBox  # noqa: F821 (made above)


@stand_in
class QDialogButtonBox(_box):
    """As in PythonQt, where flags are a number, which a constructor takes for the orientation: no buttons."""

    def __init__(self, *args):
        super().__init__(*(each for each in args if isinstance(each, QtWidgets.QWidget)))


class QUiLoader(QtUiTools.QUiLoader):
    """Makes the classes above instead of plain PySide6 ones."""

    def createWidget(self, className, parent=None, name=""):  # noqa: N802 (Qt's name)
        if className not in WIDGETS:
            return super().createWidget(className, parent, name)
        widget = WIDGETS[className](parent)
        widget.setObjectName(name)
        return widget
