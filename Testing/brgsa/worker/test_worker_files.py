"""`brgsa worker`: reports, similar cases and indexes, as files that the rest of the library makes and reads."""

import itertools
import json
import shutil
import sys

import nibabel
import numpy as np
import pytest
from worker_talk import Talk, abnormalities

from brgsa.batch.index import index_cases
from brgsa.batch.search import ScanIndex, similar_to_scan, similar_to_text
from brgsa.ct.cases import find_cases
from brgsa.scoring import Scorer

NAMES = ["Pleural effusion", "Emphysema", "Lung nodule", "Cardiomegaly"]
NUMBERS = itertools.count(100)
TEXT = "There is a pleural effusion"


@pytest.fixture(scope="module")
def warm(torso_path):
    """A worker with a scored scan in memory."""
    talk = Talk()
    talk.ask(
        id=1, request="score", path=str(torso_path), scan="a", case="My <scan>", abnormalities=abnormalities(*NAMES)
    )
    yield talk
    talk.end()


@pytest.fixture
def ask(warm):
    """Ask the warm worker; the answer and the stages on the way."""
    return lambda request, **values: warm.ask(id=next(NUMBERS), request=request, **values)


def heat_map(ask, name, folder):
    return ask("heatmap", scan="a", abnormality={"name": name}, path=str(folder / "heat.nrrd"))


def test_a_page_shows_the_three_highest_scores_and_then_the_maps_that_were_made(ask, tmp_path):
    scores = ask("rescore", scan="a", abnormalities=abnormalities(*NAMES))[0]["scores"]["scores"]
    falling = [row["name"] for row in sorted(scores, key=lambda row: -row["score"])]
    page = tmp_path / "report.html"
    message, stages = ask("report", scan="a", kind="html", path=str(page))
    assert message["heatmaps"] == falling[:3] and "encoding the scan" in stages
    text = page.read_text(encoding="utf-8")
    assert "My &lt;scan&gt;" in text and text.count("<figure>") == 9 and all(name in text for name in NAMES)

    message, stages = ask("report", scan="a", kind="html", path=str(page))
    assert message["heatmaps"] == falling[:3] and "encoding the scan" not in stages  # nothing is computed twice
    again = page.read_text(encoding="utf-8")
    assert (
        again.partition("<main>")[2].partition("Provenance")[0]
        == text.partition("<main>")[2].partition("Provenance")[0]
    )

    _, stages = heat_map(ask, falling[3], tmp_path)
    assert "encoding the scan" in stages
    _, stages = heat_map(ask, falling[3], tmp_path)
    assert "encoding the scan" not in stages
    assert ask("report", scan="a", kind="html", path=str(page))[0]["heatmaps"] == falling


def test_a_page_has_the_scores_of_the_list_as_it_was_edited_last(ask, tmp_path):
    ask("rescore", scan="a", list="mine", abnormalities=abnormalities("Rib fracture"))
    ask("report", scan="a", kind="html", path=str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Rib fracture" in text and "Emphysema" not in text and "<b>mine</b>" in text
    ask("rescore", scan="a", abnormalities=abnormalities(*NAMES))


def test_a_structured_report_refers_to_the_files_that_the_scan_came_from(ask, save_series, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    folder = save_series(tmp_path / "series", range(0, 30, 3))
    files = sorted(map(str, folder.iterdir()))
    message, stages = ask("report", scan="a", kind="sr", path=str(tmp_path / "report.dcm"), files=files)
    assert message["event"] == "result" and "reading the DICOM series" in stages, message
    report = pydicom.dcmread(tmp_path / "report.dcm")
    assert (report.PatientID, report.Modality) == ("SECRET-42", "SR")
    references = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    wanted = {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert {row.ReferencedSOPInstanceUID for row in references.ReferencedSOPSequence} == wanted
    assert ask("series", path=str(folder))[0]["files"] == files


@pytest.mark.parametrize(
    ("values", "code", "part"),
    [
        ({"kind": "pdf"}, "usage", '"pdf"'),
        ({"kind": "sr"}, "usage", '"files"'),
        ({"kind": "sr", "files": []}, "input", "none were given"),
        ({"kind": "sr", "files": ["no/such.dcm"]}, "input", "no/such.dcm"),
        ({"kind": "sr", "files": [__file__]}, "input", "damaged"),
        ({"kind": "html", "path": f"{__file__}/report.html"}, "failed", __file__),
        ({"kind": "html", "scan": "b"}, "no-scan", "Score it first"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_in_one_line(ask, tmp_path, values, code, part):
    message, _ = ask("report", **{"scan": "a", "path": str(tmp_path / "report"), **values})
    assert message["event"] == "error" and message["code"] == code, message
    assert part in message["message"] and "\n" not in message["message"]
    assert not list(tmp_path.iterdir())


def test_files_of_two_series_make_no_structured_report(ask, save_series, tmp_path):
    pytest.importorskip("highdicom")
    save_series(tmp_path / "series", [0, 3], name="a")
    save_series(tmp_path / "series", [0, 3], name="b", SeriesInstanceUID="1.2.3.9")
    files = sorted(map(str, (tmp_path / "series").iterdir()))
    message, _ = ask("report", scan="a", kind="sr", path=str(tmp_path / "report.dcm"), files=files)
    assert message["code"] == "input" and "another series" in message["message"]


def test_without_highdicom_the_line_says_what_to_install(ask, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    message, _ = ask("report", scan="a", kind="sr", path=str(tmp_path / "report.dcm"), files=["x"])
    assert message["code"] == "setup" and "pip install highdicom" in message["message"]


@pytest.fixture(scope="module")
def scorer():
    return Scorer.from_pretrained("phantom", device="cpu")


@pytest.fixture(scope="module")
def cases(tmp_path_factory, torso_path):
    """Three scans, one of them the very scan of the warm worker."""
    folder, image = tmp_path_factory.mktemp("cases"), nibabel.load(torso_path)
    for seed in (1, 2):
        noise = np.random.default_rng(seed).normal(0, 20 * seed, image.shape)
        voxels = (image.get_fdata() + noise).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / f"case{seed}.nii.gz")
    shutil.copy(torso_path, folder / "own.nii.gz")
    return folder


@pytest.fixture(scope="module")
def index(scorer, cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    index_cases(scorer, find_cases([cases]), folder)
    return folder


def test_similar_cases_are_those_that_the_command_finds_and_nothing_is_encoded_again(ask, index, cases, scorer):
    message, stages = ask("similar", scan="a", index=str(index), top=2, source={"path": str(cases / "own.nii.gz")})
    hits, own = similar_to_scan(ScanIndex.open(index), scorer, find_cases([cases / "own.nii.gz"])[0], 2)
    assert [(hit["case"], hit["path"]) for hit in message["hits"]] == [(h.case.name, str(h.case.path)) for h in hits]
    assert [hit["score"] for hit in message["hits"]] == pytest.approx([h.score for h in hits], abs=1e-5)
    assert stages == ["starting", "searching"] and len(own) == 1 and message["left_out"] == ["own"]
    assert message["scans"] == 3 and message["notice"].startswith("demonstration")
    everything, _ = ask("similar", scan="a", index=str(index), top=9)
    assert everything["hits"][0]["case"] == "own" and everything["hits"][0]["score"] == pytest.approx(1, abs=1e-6)


def test_words_find_what_the_command_finds(ask, index, scorer):
    message, _ = ask("similar", text=TEXT, index=str(index), top=3)
    hits = similar_to_text(ScanIndex.open(index), scorer, TEXT, 3)
    assert [hit["case"] for hit in message["hits"]] == [hit.case.name for hit in hits]
    assert [hit["rank"] for hit in message["hits"]] == [1, 2, 3]


def test_an_index_of_another_precision_is_searched_in_its_own(ask, cases, tmp_path, scorer):
    index_cases(scorer.like("bf16", "exact"), find_cases([cases]), tmp_path / "index")
    message, stages = ask("similar", scan="a", index=str(tmp_path / "index"), top=1)
    assert "encoding the scan" in stages and message["precision"] == "bf16"
    assert message["hits"][0]["case"] == "own" and message["hits"][0]["score"] == pytest.approx(1, abs=1e-6)


def test_a_case_that_vanished_is_marked(ask, scorer, cases, tmp_path):
    shutil.copytree(cases, tmp_path / "scans")
    index_cases(scorer, find_cases([tmp_path / "scans"]), tmp_path / "index")
    (tmp_path / "scans" / "case1.nii.gz").unlink()
    message, _ = ask("similar", scan="a", index=str(tmp_path / "index"), top=3)
    assert {hit["case"]: hit["missing"] for hit in message["hits"]} == {"own": False, "case1": True, "case2": False}


def test_an_index_of_other_weights_is_refused_in_one_line_that_says_what_to_do(ask, index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    about = json.loads((tmp_path / "index" / "index.json").read_text(encoding="utf-8"))
    (tmp_path / "index" / "index.json").write_text(json.dumps({**about, "weights_checksum": "f" * 64}))
    for values in ({"scan": "a"}, {"text": TEXT}):
        message, _ = ask("similar", index=str(tmp_path / "index"), **values)
        assert message["code"] == "setup" and "ffffffffffff" in message["message"]
        assert "make another index" in message["message"] and "--" not in message["message"]


@pytest.mark.parametrize(
    ("values", "code", "part"),
    [
        ({}, "usage", 'either "scan" or "text"'),
        ({"scan": "a", "text": TEXT}, "usage", 'either "scan" or "text"'),
        ({"scan": "a", "top": 0}, "invalid", '"top"'),
        ({"scan": "b"}, "no-scan", "Score it first"),
        ({"text": "x"}, "usage", 'the text "x" reaches the model as ""'),
        ({"scan": "a", "source": "x"}, "invalid", '"source"'),
        ({"scan": "a", "index": "/no/such/index"}, "input", "is not an index"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused_in_one_line(ask, index, values, code, part):
    message, _ = ask("similar", **{"index": str(index), **values})
    assert message["event"] == "error" and message["code"] == code, message
    assert part in message["message"] and "\n" not in message["message"]


def test_an_index_is_made_and_brought_up_to_date(ask, cases, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(cases / "case1.nii.gz", folder)
    (folder / "broken.nii.gz").write_bytes(b"no image")
    message, stages = ask("index", inputs=[str(folder)], index=str(tmp_path / "index"))
    assert (message["scans"], message["added"]) == (1, 1) and message["failures"][0]["case"] == "broken"
    assert any(stage.startswith("scan 1 of 2: ") for stage in stages)
    shutil.copy(cases / "case2.nii.gz", folder)
    message, _ = ask("index", inputs=[str(folder)], index=str(tmp_path / "index"))
    assert (message["scans"], message["added"], message["unchanged"]) == (2, 1, 1)
    assert ask("index", index="x")[0]["code"] == "invalid"
    assert ask("index", inputs=[str(tmp_path / "nothing")], index="x")[0]["code"] == "input"


def test_making_an_index_can_be_cancelled_and_goes_on_later(warm, cases, tmp_path):
    warm.send(id=7, request="index", inputs=[str(cases)], index=str(tmp_path / "index"))
    while "scan 2 of 3" not in (message := warm.next()).get("stage", ""):
        assert message["event"] == "progress", message
    warm.send(id=8, request="cancel", target=7)
    while (message := warm.next())["event"] == "progress":
        pass
    assert message["code"] == "cancelled" and not (tmp_path / "index" / "index.json").exists()
    assert list((tmp_path / "index" / "unfinished" / "embeddings").iterdir())
    message, stages = warm.ask(id=9, request="index", inputs=[str(cases)], index=str(tmp_path / "index"))
    assert message["added"] == 3 and not any(stage.startswith("scan 1 of 3") for stage in stages)


def test_a_page_can_be_cancelled_and_is_not_half_written(warm, tmp_path):
    warm.ask(id=11, request="rescore", scan="a", abnormalities=abnormalities("Rib fracture"))
    warm.send(id=12, request="report", scan="a", kind="html", path=str(tmp_path / "report.html"))
    warm.send(id=13, request="cancel", target=12)
    while (message := warm.next())["event"] == "progress":
        pass
    assert message["code"] == "cancelled" and not list(tmp_path.iterdir())
