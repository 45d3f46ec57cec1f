"""The parts of Slicer's Python package that slicer-core lacks: i18n, scripted-module base classes, parameter node
wrapper, packaging. Only what a module of today's template uses.

With BRGSA_SLICER_SOURCE set to the folder `Base/Python/slicer` of Slicer's sources, its own files are used instead (all
but the packaging), which is the sharper test.
"""

# ruff: noqa: N802, N807 (the names are those of Slicer)
import dataclasses
import importlib.metadata
import os
import sys
import types
import typing
import unittest
from pathlib import Path

import slicer
import slicer.util
import vtk


def _provide(name, **members):
    module = types.ModuleType(f"slicer.{name}")
    module.__dict__.update(members)
    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        for name in ("title", "helpText", "acknowledgementText"):
            setattr(parent, name, "")
        for name in ("categories", "dependencies", "contributors"):
            setattr(parent, name, [])

    def getDefaultModuleDocumentationLink(self, page=None):
        return ""


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            parent = slicer.qMRMLWidget()
            parent.setLayout(slicer.qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
            self.parent, self.layout = parent, parent.layout()
            self.setup()
            return
        self.parent, self.layout = parent, parent.layout()

    def resourcePath(self, name):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self):
        pass

    def cleanup(self):
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message, *args, **kwargs):
        print(message)


@dataclasses.dataclass
class WithinRange:
    minimum: float
    maximum: float


class Choice:
    def __init__(self, choices):
        self.choices = list(choices)


@dataclasses.dataclass
class Default:
    value: object


# class of a widget: attribute with the value (None: a node), its signal
_BOUND = {
    "QCheckBox": ("checked", "toggled"),
    "QLineEdit": ("text", "textChanged"),
    "QComboBox": ("currentText", "currentTextChanged"),
    "ctkSliderWidget": ("value", "valueChanged"),
    "qMRMLNodeComboBox": (None, "currentNodeChanged"),
}


def _is_node(kind):
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _read(node, name, kind):
    if _is_node(kind):
        return node.GetNodeReference(name)
    text = node.GetParameter(name)
    return text == "True" if kind is bool else kind(text)


def _write(node, name, kind, value):
    if _is_node(kind):
        node.SetNodeReferenceID(name, value.GetID() if value else None)
    elif not isinstance(value, (kind, int) if kind is float else kind):
        raise TypeError(f"{name} takes {kind.__name__}, not {type(value).__name__}")
    else:
        node.SetParameter(name, str(value))


def parameterNodeWrapper(cls):
    """Give a class with annotated fields properties that live in a parameter node and bind to widgets."""
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, notes = hint, ()
        if typing.get_origin(hint) is typing.Annotated:
            kind, *notes = typing.get_args(hint)
        default = getattr(cls, name, next((note.value for note in notes if isinstance(note, Default)), None))
        fields[name] = (kind, notes, default if default is not None or _is_node(kind) else kind())

    def __init__(self, node):
        self.__dict__.update(parameterNode=node, _bindings={}, _refreshing=False)
        for name, (kind, _notes, default) in fields.items():
            if not _is_node(kind) and node.GetParameter(name) == "" and default != "":
                _write(node, name, kind, default)

    def __setattr__(self, name, value):
        if name not in fields:
            raise AttributeError(f"the parameter node has no {name!r}")
        object.__setattr__(self, name, value)

    def put(widget, value):
        attribute = _BOUND[type(widget).__name__][0]
        if attribute is None:
            widget.setCurrentNode(value)
        elif getattr(widget, attribute) != value:
            setattr(widget, attribute, value)

    def connectGui(self, ui):
        pairs = [(w.property("SlicerParameterName"), w) for w in vars(ui).values() if w.property("SlicerParameterName")]
        slots = []

        def refresh(*_):
            if not self._refreshing:
                self.__dict__["_refreshing"] = True
                try:
                    for name, widget in pairs:
                        put(widget, getattr(self, name))
                finally:
                    self.__dict__["_refreshing"] = False

        for name, widget in pairs:
            for note in fields[name][1]:
                if isinstance(note, WithinRange):
                    widget.minimum, widget.maximum = note.minimum, note.maximum
                if isinstance(note, Choice):
                    widget.clear()
                    widget.addItems(note.choices)
            attribute, signal = _BOUND[type(widget).__name__]

            def changed(*_, name=name, widget=widget, attribute=attribute):
                if not self._refreshing:
                    setattr(self, name, widget.currentNode() if attribute is None else getattr(widget, attribute))

            put(widget, getattr(self, name))
            getattr(widget, signal).connect(changed)
            slots.append((widget, signal, changed))
        tag = max(self._bindings, default=0) + 1
        self._bindings[tag] = (slots, self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, refresh))
        return tag

    def disconnectGui(self, tag):
        slots, observer = self._bindings.pop(tag)
        for widget, signal, slot in slots:
            getattr(widget, signal).disconnect(slot)
        self.parameterNode.RemoveObserver(observer)

    def accessor(name, kind, notes):
        def read(self):
            return _read(self.parameterNode, name, kind)

        def write(self, value):
            for note in notes:
                if isinstance(note, WithinRange) and not note.minimum <= value <= note.maximum:
                    raise ValueError(f"{name} = {value} is out of range")
                if isinstance(note, Choice) and value not in note.choices:
                    raise ValueError(f"{name} = {value!r} is none of {note.choices}")
            _write(self.parameterNode, name, kind, value)

        return property(read, write)

    for name, (kind, notes, _default) in fields.items():
        setattr(cls, name, accessor(name, kind, notes))
    cls.__init__, cls.__setattr__ = __init__, __setattr__
    cls.connectGui, cls.disconnectGui = connectGui, disconnectGui
    for method in ("AddObserver", "RemoveObserver", "StartModify", "EndModify", "GetID", "HasObserver"):
        setattr(cls, method, lambda self, *args, method=method: getattr(self.parameterNode, method)(*args))
    return cls


class Packaging:
    """slicer.packaging with an index of its own: tests say what is missing and what installing does."""

    missing: typing.ClassVar[set] = set()
    decline = False
    fail = False
    asked: typing.ClassVar[list] = []

    @classmethod
    def pip_check(cls, requirement):
        name = str(requirement).partition(">")[0]
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return False
        return name not in cls.missing

    @classmethod
    def pip_ensure(cls, requirements, constraints=None, requester=None, **options):
        cls.asked.append((list(requirements), Path(constraints).read_text(encoding="utf-8")))
        if cls.decline:
            raise RuntimeError("the user declined the installation")
        if cls.fail:
            import subprocess

            raise subprocess.CalledProcessError(1, ["pip", "install"])
        cls.missing.clear()

    @staticmethod
    def load_requirements(path):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.strip() and not line.startswith(("#", "-"))]


def install():
    """Put all of it into the `slicer` package."""
    members = {name: getattr(Packaging, name) for name in ("pip_check", "pip_ensure", "load_requirements")}
    _provide("packaging", **members)
    if source := os.environ.get("BRGSA_SLICER_SOURCE"):
        slicer.__path__.append(source)
        return
    _provide("i18n", tr=lambda text: text, translate=lambda context, text: text)
    bases = {
        cls.__name__: cls
        for cls in (
            ScriptedLoadableModule,
            ScriptedLoadableModuleWidget,
            ScriptedLoadableModuleLogic,
            ScriptedLoadableModuleTest,
        )
    }
    _provide("ScriptedLoadableModule", __all__=list(bases), **bases)
    _provide(
        "parameterNodeWrapper",
        parameterNodeWrapper=parameterNodeWrapper,
        WithinRange=WithinRange,
        Choice=Choice,
        Default=Default,
    )
