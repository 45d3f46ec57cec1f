"""Nothing that a DICOM header says of a patient reaches an output, a message, a cache or a log."""

import io
import json

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from worker_talk import Talk, abnormalities

from brgsa.ct.names import series_key

MARK, UID = "ZZMARK", "1.2.3.987654321"
TEXT_TYPES = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
NEEDED = {"Modality", "ImageType", "PhotometricInterpretation", "SpecificCharacterSet"}


@pytest.fixture(scope="module")
def marked(save_dicom, tmp_path_factory):
    """A series with a mark in every text that the standard knows, in private and nested ones, and in its UIDs."""
    folder = tmp_path_factory.mktemp("marked") / "scan"
    for number in range(6):
        path = save_dicom(folder / f"{number}.dcm", np.full((40, 40), 30 * number), (0, 0, 3.0 * number), UID + ".1")
        image = pydicom.dcmread(path)
        for tag, (kind, many, *_) in DicomDictionary.items():
            group = tag >> 16
            if kind in TEXT_TYPES and many[:1] == "1" and 0x8 <= group < 0x5000 and keyword_for_tag(tag) not in NEEDED:
                image.add_new(tag, kind, MARK)
        inner = pydicom.Dataset()
        inner.CodeMeaning, inner.PatientName, inner.TextValue = MARK, MARK, MARK
        image.RequestAttributesSequence = [inner]
        private = image.private_block(0x0009, MARK, create=True)
        for element, kind in enumerate(sorted(TEXT_TYPES - {"UR"}), 1):
            private.add_new(element, kind, MARK)
        image.StudyInstanceUID, image.FrameOfReferenceUID, image.SeriesNumber = UID + ".2", UID + ".3", 4
        image.save_as(path)
    return folder


def require_unmarked(text, where):
    for secret in (MARK, UID):
        assert secret not in text, f"{where}: {text[max(0, text.find(secret) - 200) : text.find(secret) + 60]}"


def require_unmarked_files(folder):
    for path in (path for path in folder.rglob("*") if path.is_file()):
        require_unmarked(path.read_bytes().decode("latin-1"), path)


def test_no_mark_reaches_what_the_commands_write_or_say(marked, in_process, tmp_path, monkeypatch):
    monkeypatch.setenv("BRGSA_CACHE", str(tmp_path / "cache"))
    series, names = ("--series", UID + ".1"), ("--abnormalities", "Emphysema;")
    out, index = tmp_path / "out", tmp_path / "index"
    maps = ("--heatmap", "top:1", "--report", "html")
    for code, *command in (
        (0, "score", marked, "--out", out, "--force", *series, *names, *maps),
        (0, "embed", marked, "--out", tmp_path / "embedded", "--force", *series),
        (0, "index", marked, "--out", index, "--force"),
        (3, "similar", marked, "--index", index, "--force", "--json"),
        (3, "check", marked, "--json", *series),
        (3, "--debug", "score", marked, "--out", tmp_path / "refused", *names),
        (None, "check", marked, "--series", UID + ".9"),
        (None, "check", marked / "1.dcm", "--series", UID + ".9"),
    ):
        done = in_process(*command)
        assert code in (None, done.returncode), done.stderr
        require_unmarked(done.stdout + done.stderr, command)
    require_unmarked_files(tmp_path)
    record = json.loads((out / "cases" / "scan" / "scores.json").read_text())
    assert record["scan"]["series"] == series_key(UID + ".1")


def test_no_mark_reaches_a_message_of_the_worker(marked, tmp_path):
    talk, heard = Talk(), io.StringIO()
    request = {"scan": "a", "path": str(marked), "abnormalities": abnormalities("Emphysema")}
    for number, values in enumerate(
        (
            {"request": "check", "path": str(marked)},
            {"request": "score", **request},
            {"request": "score", "force": True, **request},
            {"request": "report", "scan": "a", "kind": "html", "path": str(tmp_path / "page.html")},
            {"request": "series", "path": str(marked), "series": UID + ".9"},
        ),
        1,
    ):
        heard.write(json.dumps(talk.ask(id=number, **values)))
    talk.end()
    require_unmarked(heard.getvalue(), "worker")
    require_unmarked_files(tmp_path)
