"""Chest CT abnormality scoring with BrgSA: the five classes that 3D Slicer looks for. The work is in `BrgSALib`."""

# ruff: noqa: E402, N802, N815 (Slicer's names and its reload come first)
import logging
import os
import sys
import time
from typing import Annotated

# "Reload" runs this file again but keeps other modules; without this the old library would stay.
for _name in [name for name in sys.modules if name.partition(".")[0] == "BrgSALib"]:
    del sys.modules[_name]

import qt
import slicer
import vtk
from slicer import vtkMRMLPlotChartNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

TICK_MS = 30


class BrgSA(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Chest CT Abnormality Scoring (BrgSA)")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Analysis")]
        self.parent.dependencies = []
        self.parent.contributors = ["BrgSA contributors (https://github.com/brgsa/SlicerBrgSA)"]
        self.parent.helpText = _(
            "Scores a chest CT against a list of abnormalities written in plain words and shows where the model looks. "
            'See the <a href="https://github.com/brgsa/SlicerBrgSA">documentation</a>. For research only.'
        )
        self.parent.acknowledgementText = _(
            "The method is Bridged Semantic Alignment (Lai et al., arXiv 2501.03565). This is an independent "
            "implementation of it."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer the sample volumes of the tutorial in the module Sample Data."""
    import SampleData

    icons = os.path.join(os.path.dirname(__file__), "Resources", "Icons")  # noqa: PTH118, PTH120
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="BrgSA",
        sampleName="BrgSACTChest",
        thumbnailFileName=os.path.join(icons, "BrgSA.png"),  # noqa: PTH118
        uris="https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
        "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e",
        fileNames="BrgSACTChest.nrrd",
        checksums="SHA256:4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e",
        nodeNames="CTChest",
    )
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="BrgSA",
        sampleName="BrgSAPhantom",
        thumbnailFileName=os.path.join(icons, "BrgSAPhantom.png"),  # noqa: PTH118
        uris=[],  # Slicer counts them, also where nothing is downloaded
        fileNames=[],
        customDownloader=lambda source: BrgSALogic().makePhantom(),
    )


@parameterNodeWrapper
class BrgSAParameterNode:
    """What belongs to the scene.

    inputVolume - the scan.
    abnormalities - the list under edit, as JSON with the rows that are switched off.
    promptStyle, scoreKind - see `brgsa score --help`.
    resultTable, resultChart - scores of the last scan.
    heatmap, heatmapOpacity - the heat map that is shown and how strongly it covers the scan.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    abnormalities: str = ""
    promptStyle: Annotated[str, Choice(["single", "pair", "ensemble"])] = "single"
    scoreKind: Annotated[str, Choice(["final", "direct", "bank"])] = "final"
    resultTable: vtkMRMLTableNode
    resultChart: vtkMRMLPlotChartNode
    heatmap: vtkMRMLScalarVolumeNode
    heatmapOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.4


class BrgSAWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's life cycle; `BrgSALib.panel` is what it does."""

    def __init__(self, parent=None):
        self.logic = None
        self.panel = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        """Build the panel. Starts, installs, imports and writes nothing."""
        from BrgSALib.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BrgSA.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BrgSALogic()
        self.panel = Panel(self.ui, self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        slicer.app.connect("aboutToQuit()", self.logic.close)
        self.initializeParameterNode()

    def cleanup(self):
        """Called when the module is closed or reloaded."""
        self.setParameterNode(None)
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.logic.close)
        self.logic.close()

    def enter(self):
        """Called when the module is opened."""
        self.initializeParameterNode()

    def exit(self):
        """Called when another module is opened; scoring goes on."""
        self._disconnectParameterNode()

    def onSceneStartClose(self, caller, event):
        self.panel.cancel(_("The scene was closed."))
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        if self.parent.isEntered:
            self.setParameterNode(None)
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, node):
        self.panel.on_node_added(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller, event, node):
        self.panel.on_node_removed(node)

    def initializeParameterNode(self):
        """Take the scene's parameter node, and its first scan where none was chosen yet."""
        from BrgSALib.heatmap_nodes import is_heatmap

        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if scans := [volume for volume in volumes if not is_heatmap(volume)]:
                self._parameterNode.inputVolume = scans[0]

    def setParameterNode(self, parameterNode):
        """Observe another parameter node, or none."""
        self._disconnectParameterNode()
        self._parameterNode = parameterNode
        if parameterNode:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self.panel.set_parameters(parameterNode)

    def _disconnectParameterNode(self):
        if self._parameterNode and self._parameterNodeGuiTag is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)

    def _onParametersModified(self, caller=None, event=None):
        self.panel.refresh()


class BrgSALogic(ScriptedLoadableModuleLogic):
    """Scores scans; needs no widget. See `process`."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        from BrgSALib.settings import Settings

        self.settings = Settings()
        self._log = logging.info
        self._session = None
        self._indexing = None  # a session of its own, because an index takes long and scoring should not wait for it
        self._timer = None

    def getParameterNode(self):
        return BrgSAParameterNode(super().getParameterNode())

    def process(
        self,
        inputVolume,
        abnormalities="ct-rate-18",
        weights=None,
        waitForCompletion=True,
        heatmapFor=None,
        promptStyle="single",
        scoreKind="final",
        force=False,
        device=None,
        precision=None,
        tableNode=None,
        showResult=False,
        onProgress=None,
        onFinished=None,
        onFailed=None,
    ):
        """Score a volume and put the scores into a table node.

        >>> logic = slicer.util.getModuleLogic("BrgSA")
        >>> table = logic.process(slicer.util.getNode("CTChest"), "Pleural effusion; Lung nodule")  # doctest: +SKIP

        Args:
            inputVolume: scalar volume node with a chest CT in HU; not changed.
            abnormalities: a preset, a file, names separated by ";", a list of names, or an `AbnormalityList`.
            weights: name or folder; what Setup says by default.
            waitForCompletion: return when done, keeping Slicer alive meanwhile. Otherwise return None at once; then
                `onFinished(tableNode, result)` or `onFailed(code, message, details)` is called later.
            heatmapFor: name of an abnormality whose heat map is loaded too, where the version has heat maps.
            promptStyle, scoreKind, device, precision: as `brgsa score` takes them.
            force: score even a volume whose input checks say "error"; otherwise it is refused.
            tableNode: table to fill again; a new one by default.
            showResult: show table and layout when done.
            onProgress: called with the fraction done and the stage.

        Returns:
            The table node: columns Abnormality, Score and, where calibrated, Probability, Threshold, Present.

        Raises:
            ValueError: the volume or the list cannot be used.
            RuntimeError: scoring failed or was cancelled, or a scan is being scored already.
        """
        from BrgSALib import scene, views
        from BrgSALib.session import Options

        snapshot, wanted = scene.take_snapshot(inputVolume), _asList(abnormalities)
        options = Options(
            str(weights or self.settings.weights),
            device or self.settings.device,
            precision or self.settings.precision,
            promptStyle,
            scoreKind,
            force,
        )
        volumeID, outcome, started = inputVolume.GetID(), {}, time.monotonic()
        report = onProgress or (lambda fraction, stage: None)

        def failed(code, message, details):
            outcome["error"] = message
            self._log(f"scoring failed ({code}): {message}")
            if onFailed:
                onFailed(code, message, details)

        def done(values):
            volume = scene.find_scan(volumeID, snapshot.key)
            if volume is None:
                failed("input", _("The volume was changed or removed while it was scored."), {})
                return
            try:
                table = scene.write_result(volume, values["scores"], tableNode)
            except Exception as error:  # whoever waits has to hear of it
                failed("unexpected", _("The scores cannot be put into the scene ({e}).").format(e=error), {})
                return
            outcome["scored"] = table
            self._log(f"scored {len(wanted)} abnormalities in {time.monotonic() - started:.1f} s")
            if showResult:
                views.show_table(table)
            if onFinished:
                onFinished(table, values["scores"])
            if heatmapFor:
                self.heatmap(volume, heatmapFor, wanted, lambda heat: end(), lambda code, why, more: end(why), report)
            else:
                end()

        def end(problem=None):
            if problem:
                logging.warning(problem)
            outcome["table"] = outcome["scored"]

        self.activeSession().score(snapshot, wanted, options, done, failed, report)
        if not waitForCompletion:
            return None
        while "table" not in outcome and "error" not in outcome:
            self._session.tick()
            slicer.app.processEvents()
            time.sleep(0.01)
        if "error" in outcome:
            raise RuntimeError(outcome["error"])
        return outcome["table"]

    def rescore(self, volume, abnormalities, promptStyle, scoreKind, tableNode, onFinished, onFailed):
        """Score the scan that the worker remembers with another list: only new prompts cost time."""
        from BrgSALib import scene
        from BrgSALib.session import Options

        options = Options(self.settings.weights, self.settings.device, self.settings.precision, promptStyle, scoreKind)
        session = self.activeSession()
        key = None if scene.volume_problem(volume) else scene.volume_key(volume)
        if key is None or not session.is_warm(key, options):
            onFailed("no-scan", _("This scan is not in the worker's memory."), {})
            return
        volumeID = volume.GetID()

        def done(values):
            if scan := scene.find_scan(volumeID, key):
                onFinished(scene.write_result(scan, values["scores"], tableNode), values["scores"])

        session.rescore(abnormalities, options, done, onFailed)

    def check(self, volume, onFinished, onFailed):
        """Run the input checks of `brgsa check`; `onFinished({"findings": [...]})`."""
        from BrgSALib import scene
        from BrgSALib.session import Options

        snapshot = scene.take_snapshot(volume)
        options = Options(self.settings.weights)
        self.activeSession().score(snapshot, None, options, onFinished, onFailed, lambda fraction, stage: None)

    def heatmap(self, volume, abnormality, abnormalities, onFinished, onFailed, onProgress):
        """Load where the model looks for an abnormality of a scored volume; return what cancels it.

        `onFinished(heatmapNode)`; a map of the same abnormality that is in the scene already gets the new values.
        """
        from BrgSALib import heatmap_nodes, scene

        volumeID, key = volume.GetID(), self._key(volume)

        def done(values):
            if scene.find_scan(volumeID, key) is None:
                onFailed("input", _("The scan is not in the scene any more."), {})
                return
            try:
                heat = heatmap_nodes.load_heatmap(values["path"], volume, abnormality, values.get("maximum"))
            except ValueError as error:
                onFailed("input", str(error), {})
                return
            onFinished(heat)

        return self.activeSession().heatmap(key, abnormality, abnormalities, done, onFailed, onProgress)

    def report(self, volume, onFinished, onFailed, onProgress, **values):
        """Write a report of a scored volume (the request "report" of the worker); return what cancels it."""
        return self.activeSession().start("report", onFinished, onFailed, onProgress, scan=self._key(volume), **values)

    def similar(self, volume, onFinished, onFailed, onProgress, **values):
        """Search an index by a scored volume, or by `text` (the request "similar"); return what cancels it."""
        from BrgSALib.session import Options

        if volume is not None:
            values["scan"] = self._key(volume)
            return self.activeSession().start("similar", onFinished, onFailed, onProgress, **values)
        options = Options(self.settings.weights, self.settings.device, self.settings.precision)
        return self.activeSession().start("similar", onFinished, onFailed, onProgress, options, **values)

    def updateIndex(self, folder, index, onFinished, onFailed, onProgress):
        """Add the scans of a folder to an index in a worker that ends with it; return what cancels it."""
        from BrgSALib.session import Options

        if self._indexing is None:
            self._indexing = self._newSession()
        self._startClock()
        options = Options(self.settings.weights, self.settings.device, self.settings.precision)
        return self._indexing.start("index", onFinished, onFailed, onProgress, options, inputs=[folder], index=index)

    def _key(self, volume):
        """What the worker calls a volume."""
        from BrgSALib import scene

        return "" if scene.volume_problem(volume) else scene.volume_key(volume)

    def makePhantom(self):
        """Add a small digital chest phantom to the scene; needs no network."""
        from BrgSALib import phantom, scene

        return scene.add_volume(phantom.make_phantom(), phantom.SPACING, "BrgSAPhantom")

    def acceptLicence(self, checksum):
        """Record that the licence of the weights with this checksum (`brgsa weights info`) is accepted."""
        self.settings.accept_licence(checksum)

    def cancel(self):
        """Stop scoring."""
        if self._session:
            self._session.cancel()

    def close(self):
        """End the workers. The next call starts a new one."""
        if self._timer:
            self._timer.stop()
        for session in (self._session, self._indexing):
            if session:
                session.close()

    def logTo(self, write):
        """Send log lines to `write` instead of Slicer's log."""
        self._log = write

    def activeSession(self):
        """The session, with its clock running."""
        if self._session is None:
            self._session = self._newSession()
        self._startClock()
        return self._session

    def _newSession(self):
        from BrgSALib.launch import worker_launch
        from BrgSALib.session import Session
        from BrgSALib.worker_client import WorkerClient

        def launch():
            return worker_launch(self.settings.interpreter, slicer.util.startupEnvironment())

        client = WorkerClient(launch, lambda line: self._log(line))
        return Session(client, lambda: slicer.app.temporaryPath, lambda sum_: sum_ in self.settings.accepted_licences)

    def _startClock(self):
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(TICK_MS)
            self._timer.connect("timeout()", self._onTick)
        self._timer.start()

    def _onTick(self):
        if indexing := self._indexing:
            indexing.tick()
            if indexing.idle and self._indexing is indexing:  # a dialog of its callback lets the clock tick, too
                self._indexing = None
                indexing.close()  # gives the memory of its model back
        if self._session:
            self._session.tick()
        if not self._indexing and (self._session is None or self._session.idle):
            self._timer.stop()


def _asList(abnormalities):
    from brgsa.abnormalities import AbnormalityList
    from brgsa.errors import BrgSAError

    try:
        if isinstance(abnormalities, AbnormalityList):
            return abnormalities
        if isinstance(abnormalities, (list, tuple)):
            return AbnormalityList.from_names(abnormalities)
        return AbnormalityList.parse(abnormalities)
    except BrgSAError as error:
        raise ValueError(str(error)) from error


class BrgSATest(ScriptedLoadableModuleTest):
    """Runs inside Slicer under "Reload and Test"; `Testing/` runs the same body outside it."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_PhantomIsScored()

    def test_PhantomIsScored(self):
        """A phantom goes through the worker into a table node. With BRGSA_STUB=1 the worker needs no torch."""
        from BrgSALib.packages import missing

        self.delayDisplay(_("Starting the test"))
        logic = BrgSALogic()
        if missing() and not os.environ.get("BRGSA_STUB"):
            self.delayDisplay(_("Packages are missing, so only the volume is made. Set BRGSA_STUB=1 to go on."))
        volume = logic.makePhantom()
        self.assertIsNotNone(volume.GetImageData())
        with self.assertRaises(ValueError):
            logic.process(None)
        if not missing() or os.environ.get("BRGSA_STUB"):
            try:
                table = logic.process(volume, "Pleural effusion; Emphysema", weights="phantom")
            finally:
                logic.close()
            self.assertEqual(table.GetNumberOfRows(), 2)
            self.assertEqual(table.GetTable().GetColumnByName("Abnormality").GetValue(0), "Pleural effusion")
            self.assertEqual(table.GetNodeReference("BrgSA.InputVolume"), volume)
        self.delayDisplay(_("Test passed"))
