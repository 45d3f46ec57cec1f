"""The module's classes as Slicer uses them: reload, console, sample data, self-test."""

import importlib
import re
import sys
import types

import module_host
import pytest
import slicer
from module_host import EXTENSION, BrgSA


@pytest.fixture
def logic(empty_scene):
    logic = BrgSA.BrgSALogic()
    yield logic
    logic.close()


def test_the_module_describes_itself():
    parent = types.SimpleNamespace(path=str(EXTENSION / "BrgSA.py"))
    BrgSA.BrgSA(parent)
    assert parent.title == "Chest CT Abnormality Scoring (BrgSA)"
    assert parent.categories == ["Analysis"] and "research" in parent.helpText


def test_the_console_gets_a_table_without_any_widget(stub, logic):
    stages = []
    table = logic.process(
        logic.makePhantom(), ["Pleural effusion", "Emphysema"], onProgress=lambda fraction, stage: stages.append(stage)
    )
    assert table.GetNumberOfRows() == 2 and "encoding the scan" in stages
    again = logic.process(table.GetNodeReference("BrgSA.InputVolume"), "inspect-pe", tableNode=table)
    assert again is table and table.GetNumberOfRows() >= 1


@pytest.mark.parametrize("abnormalities", ["no-such-preset", [], ["There is x"], "a;;b"])
def test_a_list_that_makes_no_sense_is_a_value_error(stub, logic, abnormalities):
    with pytest.raises(ValueError, match=r"\w"):
        logic.process(logic.makePhantom(), abnormalities)


def test_no_volume_is_a_value_error(logic):
    with pytest.raises(ValueError, match="Choose a chest CT volume"):
        logic.process(None)


def test_a_failure_is_a_runtime_error_with_the_reason(logic):
    with pytest.raises(RuntimeError, match="no weights 'no-such-weights'"):
        logic.process(logic.makePhantom(), weights="no-such-weights")


def test_a_second_scan_has_to_wait(stub, logic):
    volume, ends = logic.makePhantom(), []
    assert logic.process(volume, waitForCompletion=False, onFinished=lambda *args: ends.append(args)) is None
    with pytest.raises(RuntimeError, match="already"):
        logic.process(volume)
    while not ends:
        slicer.app.processEvents()
    assert ends[0][0].GetNumberOfRows() == 18


def test_a_heat_map_that_is_missing_does_not_cost_the_scores(stub, logic):
    table = logic.process(logic.makePhantom(), "Emphysema;", heatmapFor="Emphysema", showResult=True)
    assert table.GetNumberOfRows() == 1 and slicer.app.shown["table"] == table.GetID()


def test_scores_that_cannot_be_put_into_the_scene_end_the_waiting(stub, logic):
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")  # no table
    with pytest.raises(RuntimeError, match="cannot be put into the scene"):
        logic.process(logic.makePhantom(), tableNode=table)


@pytest.mark.parametrize("how", ["changed", "replaced"])
def test_scores_of_a_scan_that_is_another_by_now_are_not_kept(faulty, logic, how):
    """A new scene gives old IDs to new nodes, so a late answer must not land on one of them."""
    faulty("is slow")
    volume, done = logic.makePhantom(), []

    def change(fraction, stage):
        if stage == "encoding the scan" and not done:
            done.append(stage)
            if how == "changed":
                slicer.util.arrayFromVolume(volume)[0, 0, 0] = 5
                slicer.util.arrayFromVolumeModified(volume)
            else:
                slicer.mrmlScene.Clear(0)
                assert logic.makePhantom().GetID() == "vtkMRMLScalarVolumeNode1"

    with pytest.raises(RuntimeError, match="changed or removed"):
        logic.process(volume, onProgress=change)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0


def test_cancel_from_elsewhere_ends_the_call(faulty, logic):
    faulty("is slow")

    def stop(fraction, stage):
        if stage == "encoding the scan":
            logic.cancel()

    with pytest.raises(RuntimeError, match="cancelled"):
        logic.process(logic.makePhantom(), onProgress=stop)


def test_reload_brings_the_whole_library_anew(phantom):
    importlib.import_module("BrgSALib.panel")
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "BrgSALib"}
    assert "BrgSALib.panel" in before
    try:
        importlib.reload(BrgSA)
        module_host.Host().close()
        after = {name: module for name, module in sys.modules.items() if name in before}
        assert "BrgSALib.panel" in after
        assert not any(after[name] is before[name] for name in after)
    finally:
        sys.modules.update(before)  # other tests hold the library that was there before


def test_sample_data_are_offered_with_checksum_and_without_network(empty_scene, monkeypatch):
    offered = []

    def register(category, sampleName, uris=None, fileNames=None, nodeNames=None, checksums=None, **values):
        """As the real SampleDataSource, which counts what it is given."""
        for given in (uris, fileNames):
            assert isinstance(given, str) or len(given) == 0
        offered.append(values | {"uris": uris, "checksums": checksums})

    logic = types.SimpleNamespace(registerCustomSampleDataSource=register)
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    BrgSA.registerSampleData()
    chest, phantom = offered
    assert re.fullmatch(r"SHA256:[0-9a-f]{64}", chest["checksums"]) and chest["checksums"][7:] in chest["uris"]
    assert phantom["customDownloader"](None).GetImageData().GetDimensions() == (128, 128, 64)
    for each in offered:
        assert open(each["thumbnailFileName"], "rb").read(4) == b"\x89PNG"  # noqa: PTH123, SIM115


def test_the_phantom_passes_as_a_chest(empty_scene, tmp_path):
    from brgsa.ct.checks import check_ct
    from brgsa.ct.volume import read_ct
    from BrgSALib import scene
    from BrgSALib.volume_file import write_nrrd

    write_nrrd(scene.take_snapshot(BrgSA.BrgSALogic().makePhantom()), tmp_path / "p.nrrd", lambda fraction: None)
    volume = read_ct(tmp_path / "p.nrrd")
    assert volume.source.stored_axes == "LPS"
    assert not [finding for finding in check_ct(volume) if finding.severity == "error"]


def test_the_self_test_passes_as_inside_slicer(stub, empty_scene):
    BrgSA.BrgSATest("runTest").runTest()


BANNED = {
    r"\bint\(qt\.": "enums do not turn into int in Qt 6",
    r"\bqt\.Signal\b": "signals of Python classes crash in PythonQt",
    r"QRegExp|QTextCodec|QDesktopWidget": "gone in Qt 6",
    r"\.exec\(\)": "PythonQt spells it exec_()",
    r"\bimp\b": "gone in Python 3.12",
    r"multiprocessing": "hangs inside Slicer",
    r"[\"']/tmp": "no fixed folder",
    r"\bimport (torch|transformers|monai|nibabel|SimpleITK|psutil)\b": "not in Slicer's process",
}


@pytest.mark.parametrize("path", sorted((EXTENSION / "BrgSALib").glob("*.py")), ids=lambda path: path.name)
def test_no_file_uses_what_fails_in_slicer(path):
    for pattern, why in BANNED.items():
        assert not re.search(pattern, path.read_text(encoding="utf-8")), why


@pytest.mark.parametrize("path", sorted((EXTENSION / "BrgSALib").glob("*.py")), ids=lambda path: path.name)
def test_translated_sentences_have_named_places_and_no_f_strings(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b_\(\s*f[\"']", text)
    assert not re.search(r"\b_\(\s*[\"'][^\"']*\{\}", text)
