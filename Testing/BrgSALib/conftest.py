"""The stand-in for Slicer, one application for all tests of this folder; skipped where it cannot be installed."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="the Slicer tests need PySide6_Essentials and slicer-core")
pytest.importorskip("slicer_core", reason="the Slicer tests need PySide6_Essentials and slicer-core")

STANDIN = Path(__file__).resolve().parents[1] / "standins" / "panel"
sys.path.insert(0, str(STANDIN))
import module_host  # noqa: E402


@pytest.fixture(autouse=True)
def private_settings(tmp_path_factory, monkeypatch):
    """Keep Slicer's settings and temporary files of every test in folders of its own, and packages as installed."""
    import qt
    import slicer
    import slicer_base

    folder = str(tmp_path_factory.mktemp("settings"))
    for kind in (qt.QSettings.NativeFormat, qt.QSettings.IniFormat):
        qt.QSettings.setPath(kind, qt.QSettings.UserScope, folder)
    monkeypatch.setattr(slicer.app, "temporaryPath", str(tmp_path_factory.mktemp("temporary")))
    packaging = slicer_base.Packaging
    packaging.missing.clear()
    packaging.asked.clear()
    monkeypatch.setattr(packaging, "decline", False)
    monkeypatch.setattr(packaging, "fail", False)
    return packaging


@pytest.fixture
def empty_scene():
    """slicer.mrmlScene, emptied before and after."""
    import slicer

    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.app.layout_manager.close()
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def stub(monkeypatch):
    """Score with the stub worker, which starts at once."""
    monkeypatch.setenv("BRGSA_STUB", "1")


@pytest.fixture
def faulty(monkeypatch):
    """Give the panel a worker with a fault."""
    from BrgSALib import launch

    plain, chosen = launch.worker_launch, {}

    def with_fault(*args):
        usual = plain(*args)
        program = (usual.args[0], str(STANDIN / "faulty_worker.py"), chosen["fault"])
        return launch.Launch(program, {**os.environ, **usual.environment}, usual.folder)

    monkeypatch.setattr(launch, "worker_launch", with_fault)
    return lambda fault: chosen.update(fault=fault)


@pytest.fixture
def phantom(empty_scene):
    """A phantom in the scene."""
    return module_host.BrgSA.BrgSALogic().makePhantom()


@pytest.fixture
def host(empty_scene):
    """The panel on an empty scene or, after `phantom`, on one with a scan."""
    host = module_host.Host()
    yield host
    host.close()


@pytest.fixture
def answers(monkeypatch):
    """What the user answers to dialogs, and what was asked."""

    from BrgSALib.dialogs import Dialogs

    class Answers:
        path, folder, confirm, licence = "", "", True, True
        asked = []  # noqa: RUF012 (one per fixture)

    Answers.asked = []
    monkeypatch.setattr(Dialogs, "open_file", lambda self, *args: str(Answers.path))
    monkeypatch.setattr(Dialogs, "save_file", lambda self, *args: str(Answers.path))
    monkeypatch.setattr(Dialogs, "choose_folder", lambda self, title: str(Answers.folder))
    monkeypatch.setattr(Dialogs, "confirm", lambda self, question: Answers.asked.append(question) or Answers.confirm)
    monkeypatch.setattr(
        Dialogs, "accept_licence", lambda self, name, text, before: Answers.asked.append(text) or Answers.licence
    )
    return Answers
