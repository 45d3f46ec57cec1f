"""An application around slicer-core: scene, IO manager, layout manager, MRML widgets, modules. For tests only."""

# ruff: noqa: N801, N802, N815 (the names are those of Slicer)
import sys
import tempfile
import types
from pathlib import Path
from xml.etree import ElementTree

import ctk  # noqa: F401 (registers its widgets for .ui files)
import qt
import shiboken6
import slicer
import slicer.util
import slicer_base

application = qt.QApplication.instance() or qt.QApplication([])
application.setApplicationName("SlicerStandIn")
application.setOrganizationName("BrgSATests")
application.setStyle("Fusion")


class IOManager:
    """Loads and saves volumes through storage nodes, as slicer.util expects it of the application."""

    def fileType(self, name):
        return "VolumeFile"

    def fileWriterFileType(self, node, *rest):
        return "VolumeFile"

    def loadNodes(self, kind, properties, collection, messages=None):
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(properties["fileName"])
        storage.SetSingleFile(int(properties.get("singleFile", False)))
        name = properties.get("name") or Path(properties["fileName"]).name.partition(".")[0]
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        if not storage.ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            return False
        node.CreateDefaultDisplayNodes()
        collection.AddItem(node)
        return True


class SliceWidget:
    """One slice view: its real logic, which makes slice and composite node in the scene."""

    def __init__(self, name):
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.AddSliceNode(name).SetViewGroup(1 if name.endswith("+") else 0)

    def sliceLogic(self):
        return self._logic

    def close(self):
        # closing a scene leaves its singletons
        nodes = self._logic.GetSliceNode(), self._logic.GetSliceCompositeNode()
        self._logic.SetMRMLScene(None)
        for node in nodes:
            slicer.mrmlScene.RemoveNode(node)


class LayoutManager:
    """Remembers what it is asked to show; makes slice views when they are asked for."""

    def __init__(self):
        self.layout = 1
        self._slices = {}

    def setLayout(self, layout):
        self.layout = layout

    def sliceWidget(self, name):
        if name not in self._slices:
            self._slices[name] = SliceWidget(name)
        return self._slices[name]

    def close(self):
        """Forget layout and views, as if the application had just started."""
        for widget in self._slices.values():
            widget.close()
        self.__init__()


class App:
    """slicer.app."""

    def __init__(self):
        self.temporaryPath = tempfile.gettempdir()
        self.shown = {}
        self.slots = []
        self.layout_manager = LayoutManager()

    def mrmlScene(self):
        return slicer.mrmlScene

    def coreIOManager(self):
        return IOManager()

    def testingEnabled(self):
        return True

    def processEvents(self, *flags):
        application.processEvents()

    def setOverrideCursor(self, cursor):
        qt.QApplication.setOverrideCursor(qt.QCursor(cursor))

    def restoreOverrideCursor(self):
        qt.QApplication.restoreOverrideCursor()

    def connect(self, signal, slot):
        self.slots.append((signal, slot))

    def disconnect(self, signal, slot):
        self.slots.remove((signal, slot))

    def emit(self, signal):
        for name, slot in list(self.slots):
            if name == signal:
                slot()

    def translate(self, context, text):
        return text

    def moduleManager(self):
        return self

    def layoutManager(self):
        return self.layout_manager

    def applicationLogic(self):
        return self

    def GetSelectionNode(self):
        return types.SimpleNamespace(SetActiveTableID=lambda ID: self.shown.__setitem__("table", ID))

    def PropagateTableSelection(self):
        pass

    def startupEnvironment(self):
        return qt.QProcessEnvironment.systemEnvironment()


def scene_receivers():
    """The widgets that the .ui file connects with the signal mrmlSceneChanged."""
    file = Path(__file__).resolve().parents[3] / "BrgSAExtension" / "Resources" / "UI" / "BrgSA.ui"
    connections = ElementTree.parse(file).iter("connection")
    return {each.findtext("receiver") for each in connections if "mrmlSceneChanged" in each.findtext("signal")}


@qt.stand_in
class qMRMLWidget(qt.QWidget):
    mrmlSceneChanged = qt.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self.isEntered = True

    def setMRMLScene(self, scene):
        """Hand the scene to those children that a connection of the .ui file names, and to no others."""
        self._scene = scene
        for child in self.findChildren(qt.QWidget):
            if child.objectName in scene_receivers() and hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene


class NodeFilter:
    """The part of qMRMLSortFilterProxyModel that hides nodes by ID."""

    def __init__(self, selector):
        self._selector, self._hidden = selector, []

    @property
    def hiddenNodeIDs(self):
        return self._hidden

    @hiddenNodeIDs.setter
    def hiddenNodeIDs(self, ids):
        if list(ids) != self._hidden:
            self._hidden = list(ids)
            if self._selector._scene:
                self._selector._refresh()


@qt.stand_in
class qMRMLNodeComboBox(qt.QComboBox):
    """Lists the scene's nodes of the classes in its property `nodeTypes`; takes the next when its own is deleted."""

    currentNodeChanged = qt.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._ids, self._attributes = None, [], []
        self._model = NodeFilter(self)
        self.currentIndexChanged.connect(lambda index: self.currentNodeChanged.emit(self.currentNode()))

    def addAttribute(self, kind, name):
        self._attributes.append(name)
        if self._scene:
            self._refresh()

    def sortFilterProxyModel(self):
        return self._model

    def setMRMLScene(self, scene):
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda *_: shiboken6.isValid(self) and self._refresh())
        self._refresh()

    def _refresh(self):
        current = self.currentNodeID
        kinds = self.property("nodeTypes") or []
        nodes = [self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes())]
        # without showChildNodeTypes only the very classes named
        nodes = [n for n in nodes if n.GetClassName() in kinds and not n.GetHideFromEditors()]
        nodes = [n for n in nodes if all(n.GetAttribute(name) is not None for name in self._attributes)]
        nodes = [n for n in nodes if n.GetID() not in self._model.hiddenNodeIDs]
        place = qt.QComboBox.currentIndex.fget(self)
        self.blockSignals(True)
        self.clear()
        self._ids = [""] if self.property("noneEnabled") else []
        if self._ids:
            self.addItem(self.property("noneDisplay") or "Select a volume")
        for node in nodes:
            self.addItem(node.GetName())
            self._ids.append(node.GetID())
        if current in self._ids:
            place = self._ids.index(current)
        elif not current:
            place = 0
        self.setCurrentIndex(min(place, len(self._ids) - 1))
        self.blockSignals(False)
        if self.currentNodeID != current:
            self.currentNodeChanged.emit(self.currentNode())

    @property
    def currentNodeID(self):
        index = qt.QComboBox.currentIndex.fget(self)
        return self._ids[index] if 0 <= index < len(self._ids) else ""

    def currentNode(self):
        return self._scene.GetNodeByID(self.currentNodeID) if self._scene and self.currentNodeID else None

    def setCurrentNode(self, node):
        wanted = node.GetID() if node is not None else ""
        self.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else (0 if "" in self._ids else -1))


def install(module_paths):
    """Make `slicer` look like the application's, with the modules in `module_paths` (name: path of its .py)."""
    slicer_base.install()
    slicer.qt = qt
    slicer.app = App()
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.mrmlScene.RegisterNodeClass(slicer.vtkMRMLSequenceBrowserNode())
    colors = slicer.vtkMRMLColorLogic()
    colors.SetMRMLScene(slicer.mrmlScene)
    slicer.color_logic = colors  # kept alive: it fills the scene with color nodes again after each closing
    slicer.qMRMLWidget, slicer.qMRMLNodeComboBox = qMRMLWidget, qMRMLNodeComboBox
    # Slicer's parameter node wrapper names these without making one.
    for name in (
        "qMRMLMarkupsToolBar",
        "qMRMLRangeWidget",
        "qMRMLSliderWidget",
        "qMRMLSpinBox",
        "qMRMLSubjectHierarchyComboBox",
        "qMRMLSubjectHierarchyTreeView",
    ):
        setattr(slicer, name, type(name, (), {}))
    slicer.selfTests = {}

    def module(**members):
        return types.SimpleNamespace(logic=lambda: types.SimpleNamespace(**members))

    shown = slicer.app.shown
    slicer.modules = types.SimpleNamespace(
        tables=module(GetLayoutWithTable=lambda layout: 42),
        plots=module(ShowChartInLayout=lambda chart: shown.__setitem__("chart", chart.GetID())),
        colors=module(AddDefaultColorLegendDisplayNode=lambda node: shown.__setitem__("legend", node.GetID())),
    )
    slicer.util.modulePath = lambda name: str(module_paths[name])
    sys.path[:0] = [str(Path(path).parent) for path in module_paths.values()]
