"""`brgsa worker`: the protocol, its faults, and that it never outlives its other side."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from waiting import LONGEST_WAIT, wait
from worker_talk import Talk, abnormalities

from brgsa.abnormalities import AbnormalityList
from brgsa.errors import InputError, OutOfMemoryError
from brgsa.worker.job import CancelledError, Channel, Job
from brgsa.worker.protocol import LONGEST_LINE, PROTOCOL_VERSION, REQUESTS
from brgsa.worker.scan import cancel_points, memory_warning
from brgsa.worker.server import Worker, request_lines

EXTENSION = Path(__file__).resolve().parents[3] / "BrgSAExtension"
NAMES = ["Pleural effusion", "Emphysema"]


def converse(*arguments, request, **environment):
    """Start a worker process, send one request, close its input after the answer; messages, stderr, exit code."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=EXTENSION,
        env={**os.environ, **environment},
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    process.stdin.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
    process.stdin.flush()
    messages = []
    while not messages or messages[-1]["event"] not in ("result", "error"):
        messages.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    errors, code = process.stderr.read().decode(), process.wait()
    watchdog.cancel()
    return messages, errors, code


@pytest.fixture
def talk():
    talk = Talk()
    yield talk
    talk.end()


def test_the_first_message_names_the_version_of_the_protocol(talk):
    assert talk.hello["event"] == "hello"
    assert talk.hello["protocol"] == PROTOCOL_VERSION
    assert talk.hello["pid"] == os.getpid()


@pytest.mark.parametrize("line", ["rubbish\n", "[1]\n", '{"id": 1}\n', "{" * 3000 + "\n"])
def test_a_line_that_is_no_request_is_answered_and_changes_nothing(talk, line):
    talk.send_line(line)
    message = talk.next()
    assert (message["event"], message["code"], message["id"]) == ("error", "invalid", None)
    talk.send(id=2, request="ping")
    assert talk.next() == {"event": "pong", "id": 2}


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        ({"request": "cancel", "target": []}, '"target" as a whole number'),
        ({"request": "cancel"}, '"target" as a whole number'),
        ({"request": "check", "path": {}}, '"path" as text'),
        ({"request": "score", "path": "x", "scan": 1}, '"scan" as text'),
        ({"request": "index", "index": "x", "inputs": ["a", 1]}, '"inputs" as a list of texts'),
        ({"request": "similar", "index": "x", "text": "y", "top": True}, '"top" as a whole number'),
        ({"request": "similar", "index": "x", "scan": "1", "source": {"path": 3}}, '"path" as text'),
        ({"request": "series", "path": "x", "series": ["1.2"]}, '"series" as text'),
    ],
)
def test_a_field_of_another_type_is_invalid_and_the_next_request_is_answered(talk, request_, part):
    message, _ = talk.ask(id=1, **request_)
    assert (message["event"], message["code"], message["id"]) == ("error", "invalid", 1) and part in message["message"]
    talk.send(id=2, request="ping")
    assert talk.next() == {"event": "pong", "id": 2}


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("request_", [{"request": "check"}, {"request": "series"}, {"request": "score", "scan": "a"}])
def test_a_character_that_is_none_is_a_fault_of_the_input(talk, request_, text):
    message, _ = talk.ask(id=1, path=text, **request_)
    assert message["code"] in ("input", "invalid"), message
    message, _ = talk.ask(id=2, request="check", path="x", weights=text)
    assert message["code"] == "input" and '"weights"' in message["message"]


def test_a_line_of_over_a_megabyte_is_refused_and_not_kept():
    stream = io.BytesIO(b"[" * 5_000_000 + b"\n" + b'{"id": 1, "request": "ping"}\n' + b"x" * 3_000_000)
    lines = list(request_lines(stream))
    assert [len(line) for line in lines] == [LONGEST_LINE + 1, 29, LONGEST_LINE + 1]
    answers = io.StringIO()
    Worker(lines, answers).run()
    messages = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [message.get("code", message["event"]) for message in messages] == ["hello", "invalid", "pong", "invalid"]


def test_every_request_has_its_fields_declared_and_described():
    assert set(Worker([], io.StringIO())._handlers) == set(REQUESTS) - {"cancel", "ping"}
    text = (EXTENSION.parent / "docs" / "worker-protocol.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name, fields in REQUESTS.items():
        missing = [field for field in fields if f"`{field}`" not in rows[name]]
        assert not missing, f"{name}: {missing}"


def test_an_unknown_request_is_refused_with_the_known_ones(talk):
    message, _ = talk.ask(id=1, request="socre")
    assert message["code"] == "usage" and "rescore" in message["message"]


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        ({"request": "check"}, '"path"'),
        ({"request": "check", "path": "no/such/file.nii.gz"}, "no/such/file.nii.gz"),
        ({"request": "score", "path": "x", "scan": "1"}, '"abnormalities"'),
        ({"request": "score", "path": "x", "scan": "1", "abnormalities": [{"nane": "x"}]}, "nane"),
        ({"request": "score", "path": "x", "scan": "1", "abnormalities": [{"name": ""}]}, "empty"),
        ({"request": "weights/info", "weights": "no-such-weights"}, "no-such-weights"),
        ({"request": "heatmap", "scan": "1", "path": "x", "abnormality": {"name": "Emphysema"}}, "not in memory"),
        ({"request": "rescore", "scan": "1", "abnormalities": [{"name": "Emphysema"}]}, "not in memory"),
    ],
)
def test_a_request_that_cannot_be_served_gets_one_line_that_says_why(talk, request_, part):
    message, _ = talk.ask(id=1, **request_)
    assert message["event"] == "error"
    assert part in message["message"] and "\n" not in message["message"]
    assert message["code"] in ("invalid", "usage", "input", "setup", "no-scan")


def test_a_heat_map_lies_on_the_scan_after_its_file_is_gone(talk, torso_path, tmp_path):
    import SimpleITK

    copy = tmp_path / "scan.nii.gz"
    copy.write_bytes(torso_path.read_bytes())
    rows = [{"name": name} for name in NAMES]
    talk.ask(id=1, request="score", path=str(copy), scan="1", abnormalities=rows)
    copy.unlink()
    for number, method in enumerate(("rollout", "similarity"), start=2):
        path = tmp_path / f"{method}.nrrd"
        message, stages = talk.ask(
            id=number, request="heatmap", scan="1", abnormality=rows[1], path=str(path), method=method
        )
        assert message["event"] == "result" and "encoding the scan" in stages, message
        heat, scan = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(torso_path))
        assert heat.GetSize() == scan.GetSize() and heat.GetDirection() == pytest.approx(scan.GetDirection())
        x, y, z = message["maximum"]
        assert heat.GetPixel(*heat.TransformPhysicalPointToIndex((-x, -y, z))) == 1


def test_a_heat_map_request_without_an_abnormality_is_refused_in_one_line(talk, torso_path, tmp_path):
    talk.ask(id=1, request="score", path=str(torso_path), scan="1", abnormalities=[{"name": "Emphysema"}])
    message, _ = talk.ask(id=2, request="heatmap", scan="1", path=str(tmp_path / "heat.nrrd"))
    assert message["code"] == "invalid" and "\n" not in message["message"]
    assert not list(tmp_path.iterdir())


class Failing(Worker):
    """Raises what the request's path names."""

    def _check(self, job: Job):
        raise {
            "memory": OutOfMemoryError("not enough memory on cuda."),
            "builtin memory": MemoryError(),
            "input": InputError("scan.nii: damaged."),
            "missing package": ModuleNotFoundError("No module named 'nibabel'", name="nibabel.nifti1"),
            "damaged package": ImportError("libcudnn.so.9: cannot open shared object file", name="torch"),
            "bug": KeyError("surprise"),
        }[job.values["path"]]


@pytest.mark.parametrize(
    ("path", "code", "part"),
    [
        ("memory", "out-of-memory", "not enough memory"),
        ("builtin memory", "out-of-memory", "memory"),
        ("input", "input", "damaged"),
        ("missing package", "setup", "package nibabel is missing"),
        ("damaged package", "setup", "libcudnn"),
        ("bug", "unexpected", "KeyError"),
    ],
)
def test_every_kind_of_failure_has_its_code_and_the_worker_goes_on(path, code, part, capsys):
    talk = Talk(Failing)
    message, _ = talk.ask(id=1, request="check", path=path)
    assert message["code"] == code and part in message["message"]
    if code == "out-of-memory":
        assert message["suggestions"] == {"cpu": {"device": "cpu"}, "half": {"precision": "bf16"}}
    assert talk.ask(id=2, request="check", path="input")[0]["code"] == "input"
    talk.end()


def test_the_checks_are_those_of_the_weights_that_are_named(talk, save_lungs_behind):
    path = str(save_lungs_behind(150))
    message, _ = talk.ask(id=1, request="check", path=path, weights="phantom")
    assert "384 x 288 x 384 mm" in " ".join(row["message"] for row in message["findings"])
    assert talk.ask(id=2, request="check", path=path, weights="other")[0]["code"] == "setup"


class Patient(Worker):
    """Works until it is cancelled."""

    def _check(self, job: Job):
        while True:
            job.progress(0.5, "working")
            time.sleep(0.02)


def test_cancel_ends_a_request_and_the_next_one_is_served():
    talk = Talk(Patient)
    talk.send(id=1, request="check", path="x")
    assert talk.next()["event"] == "progress"
    talk.send(id=2, request="cancel", target=1)
    while (message := talk.next())["event"] == "progress":
        pass
    assert (message["id"], message["code"]) == (1, "cancelled")
    assert talk.ask(id=3, request="weights/list")[0]["event"] == "result"
    talk.end()


def test_a_request_that_still_waits_can_be_cancelled():
    talk = Talk(Patient)
    talk.send(id=1, request="check", path="x")
    talk.send(id=2, request="check", path="x")
    talk.send(id=3, request="cancel", target=2)
    talk.send(id=4, request="cancel", target=1)
    ends = []
    while len(ends) < 2:
        message = talk.next()
        if message["event"] == "error":
            ends.append((message["id"], message["code"]))
    assert ends == [(1, "cancelled"), (2, "cancelled")]
    talk.end()


class Deaf(Worker):
    """Does not notice a cancel, as a long matrix product."""

    may_end = threading.Event()

    def _check(self, job: Job):
        self.may_end.wait(LONGEST_WAIT)
        return {}


def test_work_that_does_not_stop_is_cut_off_when_the_input_ends():
    talk = Talk(Deaf)
    talk.send(id=1, request="check", path="x")
    talk.next()
    talk.send_line(None)
    wait(lambda: talk.exit_codes)
    assert talk.exit_codes == [0] and talk.thread.is_alive()
    Deaf.may_end.set()


def test_only_messages_reach_standard_output_whatever_libraries_print():
    code = (
        "import os, sys\n"
        "from brgsa.worker.server import Worker, protocol_streams\n"
        "class Noisy(Worker):\n"
        "    def _check(self, job):\n"
        "        print('printed'); sys.stdout.flush(); os.system('echo from a child'); os.write(1, b'from C\\n')\n"
        "        return {'findings': []}\n"
        "Noisy(*protocol_streams()).run()\n"
    )
    messages, errors, _ = converse("-c", code, request={"id": 1, "request": "check", "path": "x"})
    assert [message["event"] for message in messages] == ["hello", "progress", "result"]
    for noise in ("printed", "from a child", "from C"):
        assert noise in errors


def test_text_in_any_script_survives_the_pipes_in_any_locale():
    request = {"id": 1, "request": "check", "path": "/tmp/Müller/胸部.nrrd"}
    messages, _, code = converse("-m", "brgsa.worker.server", request=request, LC_ALL="C", PYTHONUTF8="1")
    assert "/tmp/Müller/胸部.nrrd" in messages[-1]["message"]
    assert code == 0


def test_the_worker_starts_without_loading_torch():
    code = "import sys, brgsa.worker.server; print({'torch', 'numpy', 'transformers'} & set(sys.modules) or 'none')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=EXTENSION, timeout=LONGEST_WAIT
    )
    assert done.stdout.strip() == "none"


def test_deleting_refuses_what_is_no_weights_folder_and_what_ships(talk, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    message, _ = talk.ask(id=1, request="weights/delete", folder=str(tmp_path))
    assert message["code"] == "usage" and (tmp_path / "precious.txt").exists()
    shipped = EXTENSION / "brgsa" / "data" / "weights" / "phantom"
    message, _ = talk.ask(id=2, request="weights/delete", folder=str(shipped))
    assert message["code"] == "usage" and (shipped / "model.safetensors").exists()


def test_deleting_a_weights_folder_gives_its_size_back(talk, tmp_path):
    folder = shutil.copytree(EXTENSION / "brgsa" / "data" / "weights" / "phantom", tmp_path / "mine")
    size = sum(path.stat().st_size for path in folder.iterdir())
    message, _ = talk.ask(id=1, request="weights/delete", folder=str(folder))
    assert message["bytes"] == size and message["left"] == [] and not folder.exists()


def test_deleting_weights_leaves_what_a_person_put_beside_them(talk, tmp_path):
    folder = shutil.copytree(EXTENSION / "brgsa" / "data" / "weights" / "phantom", tmp_path / "mine")
    (folder / "thesis.docx").write_text("two years")
    (folder / "scans").mkdir()
    message, _ = talk.ask(id=1, request="weights/delete", folder=str(folder))
    assert message["left"] == ["scans", "thesis.docx"]
    assert sorted(path.name for path in folder.iterdir()) == ["scans", "thesis.docx"]


def test_a_folder_of_other_things_with_checksums_is_no_weights_folder(talk, tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  image.iso\n")
    (tmp_path / "image.iso").write_text("x")
    (tmp_path / "model.safetensors").write_text("x")
    message, _ = talk.ask(id=1, request="weights/delete", folder=str(tmp_path))
    assert message["code"] == "usage" and len(list(tmp_path.iterdir())) == 3


def test_a_scan_is_scored_as_the_library_scores_it_and_edits_cost_only_texts(real_ct):
    from brgsa.scoring import Scorer

    path = str(real_ct / "cip_ct64.nrrd")
    talk = Talk()
    message, stages = talk.ask(
        id=1, request="score", scan="a", case="cip", path=path, list="mine", abnormalities=abnormalities(*NAMES)
    )
    assert stages[0] == "starting" and "encoding the scan" in stages and "loading the weights" in stages
    direct = Scorer.from_pretrained("phantom").score(path, AbnormalityList.from_names(NAMES))
    assert [row["score"] for row in message["scores"]["scores"]] == pytest.approx(
        [row.score for row in direct.scores], abs=1e-6
    )
    assert message["scores"]["case"] == "cip" and message["scores"]["notice"]

    again, stages = talk.ask(id=2, request="rescore", scan="a", abnormalities=abnormalities("Lung nodule", *NAMES))
    assert stages == ["starting"]
    assert [row["name"] for row in again["scores"]["scores"]] == ["Lung nodule", *NAMES]
    assert [row["score"] for row in again["scores"]["scores"]][1:] == pytest.approx(
        [row["score"] for row in message["scores"]["scores"]], abs=1e-6
    )
    assert talk.ask(id=3, request="rescore", scan="b", abnormalities=abnormalities("x y"))[0]["code"] == "no-scan"
    assert talk.ask(id=4, request="cache/clear")[0]["removed"] > 0
    talk.end()


def test_a_scan_that_fails_the_checks_is_scored_by_force_only(save_nifti, tmp_path):
    path = str(save_nifti(tmp_path / "flat.nii.gz", np.zeros((30, 30, 30), np.int16), np.eye(4)))
    talk = Talk()
    request = {"request": "score", "scan": "a", "path": path, "abnormalities": abnormalities(*NAMES)}
    message, stages = talk.ask(id=1, **request)
    assert (message["event"], message["code"]) == ("error", "refused") and "encoding the scan" not in stages
    assert [finding["code"] for finding in message["findings"]] == ["values-not-hu"]
    assert talk.ask(id=2, request="rescore", scan="a", abnormalities=abnormalities("x y"))[0]["code"] == "no-scan"
    forced, _ = talk.ask(id=3, **request, force=True)
    assert forced["event"] == "result" and forced["scores"]["flags"][0] == "forced"
    assert talk.ask(id=4, **request, force="yes")[0]["code"] == "invalid"
    index = {"request": "index", "inputs": [path], "index": str(tmp_path / "index")}
    message, _ = talk.ask(id=5, **index)
    assert message["scans"] == 0 and "refused: values-not-hu" in message["failures"][0]["reason"]
    assert talk.ask(id=6, **index, force=True)[0]["scans"] == 1
    text = {"request": "similar", "index": index["index"], "text": "There is a nodule"}
    assert talk.ask(id=7, **text)[0]["hits"][0]["forced"] is True
    talk.end()


def test_a_cancel_takes_effect_before_the_next_layer_and_leaves_no_hook():
    from types import SimpleNamespace

    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    job = Job(1, "score", {}, Channel(io.StringIO()))
    model[0].register_forward_hook(lambda *_: job.cancelled.set())
    reached = []
    model[1].register_forward_hook(lambda *_: reached.append(1))
    with cancel_points(SimpleNamespace(model=model), job), pytest.raises(CancelledError):
        model(torch.zeros(1, 2))
    assert not reached
    model(torch.zeros(1, 2))
    assert reached


def test_a_cancel_stops_the_encoding_between_two_layers():
    import torch

    from brgsa.worker.stub import StubScorer, StubWorker

    class Scorer(StubScorer):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))

        def embed(self, prepared, *, case, on_progress):
            self.model[0].register_forward_hook(lambda *_: talk.worker._jobs[1].cancelled.set())
            self.model[1].register_forward_hook(lambda *_: pytest.fail("the next layer was reached"))
            self.model(torch.zeros(1, 2))

    class Encoding(StubWorker):
        def open_scorer(self, job):
            return Scorer()

    talk = Talk(Encoding)
    message, _ = talk.ask(id=1, request="score", scan="a", path="x", abnormalities=abnormalities(*NAMES))
    assert message["code"] == "cancelled"
    talk.end()


def test_few_new_prompts_are_encoded_in_one_thread_and_many_in_all():
    import torch

    from brgsa.worker.stub import StubScorer, StubWorker

    threads, usual = [], torch.get_num_threads()

    class Counting(StubScorer):
        def score_embedding(self, *args, **options):
            threads.append(torch.get_num_threads())
            return super().score_embedding(*args, **options)

    class Patched(StubWorker):
        def open_scorer(self, job):
            self._scorer = (("stub",), Counting())
            return self._scorer[1]

    try:
        torch.set_num_threads(2)
        talk = Talk(Patched)
        first = abnormalities(*NAMES)
        many = abnormalities(*(f"finding number {n}" for n in range(9)))
        talk.ask(id=1, request="score", scan="a", path="x", abnormalities=first)
        talk.ask(id=2, request="rescore", scan="a", abnormalities=[*first, *abnormalities("Lung nodule")])
        talk.ask(id=3, request="rescore", scan="a", abnormalities=many)
        talk.ask(id=4, request="rescore", scan="a", abnormalities=many)
        talk.end()
        assert threads == [2, 1, 2, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize(("free", "warned"), [(10e9, False), (2e9, True)])
def test_too_little_memory_on_an_accelerator_is_announced_before_loading(monkeypatch, free, warned):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80e9))
    message = memory_warning("auto", 800_000_000)
    assert bool(message) is warned
    if warned:
        assert "2.0 GB" in message and "3.2 GB" in message
    assert memory_warning("cpu", 800_000_000) is None


def test_the_stub_speaks_the_protocol_without_torch_or_numpy():
    request = {"id": 1, "request": "score", "scan": "a", "path": "x", "abnormalities": abnormalities(*NAMES)}
    code = (
        "import sys, runpy\n"
        "sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "runpy.run_module('brgsa.worker.stub', run_name='__main__')\n"
    )
    last = converse("-c", code, request=request)[0][-1]
    assert [row["name"] for row in last["scores"]["scores"]] == NAMES
    assert last["scores"]["notice"].startswith("stub")
