"""`brgsa worker` meets hostile lines: it answers each in its own words and goes on."""

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from waiting import LONGEST_WAIT

from brgsa.worker.protocol import FLAG, OBJECT, OBJECTS, REQUESTS, TEXT, TEXTS

EXTENSION = Path(__file__).resolve().parents[3] / "BrgSAExtension"
# Those without fields cannot be wrong, and what a request really does is slow: they are asked for elsewhere.
NAMES = sorted(name for name, fields in REQUESTS.items() if fields)
CODES = {"invalid", "usage", "input", "setup", "no-scan", "failed", "cancelled", "refused"}
NUMBERS = itertools.count(10**9)

TEXTS_ = st.text(alphabet=st.characters(), max_size=20) | st.sampled_from(
    ["", "\0", "\ud800", "a\udfffb", "\n", "../../etc/passwd", "phantom", "cpu", "cuda:99", "bf16", "sr", "x" * 5000]
)
ABSENT = TEXTS_.map(lambda text: f"absent/{text}")
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS_, st.sampled_from([10**400, -(2**63), 1e308])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS_, inner, max_size=4))
ABNORMALITIES = st.fixed_dictionaries(
    {"name": TEXTS_ | VALUES},
    optional=dict.fromkeys(("prompts", "negative_prompts", "group", "codes", "threshold", "nane"), VALUES),
)
RIGHT = {
    TEXT: ABSENT,
    FLAG: st.booleans(),
    TEXTS: st.lists(ABSENT, max_size=3),
    OBJECT: ABNORMALITIES,
    OBJECTS: st.lists(ABNORMALITIES, max_size=3),
}


@st.composite
def requests(draw):
    """A request with fields of the right kind, any of which may be something else or missing."""
    name = draw(st.sampled_from(NAMES))
    values = {"id": draw(st.integers(0, 50)), "request": name}
    for key, field in REQUESTS[name].items():
        if draw(st.integers(0, 9)):
            values[key] = draw(RIGHT.get(field.kind, VALUES) if draw(st.booleans()) else VALUES)
    if not draw(st.integers(0, 5)):
        values[draw(st.sampled_from(["id", "request", "more"]))] = draw(VALUES)
    return json.dumps(values).encode()


@st.composite
def damaged(draw):
    """A request of which a part is cut out, doubled or overwritten."""
    line = draw(requests())
    start = draw(st.integers(0, len(line)))
    end = draw(st.integers(start, len(line)))
    return line[:start] + draw(st.sampled_from([b"", line[start:end] * 2, b"\xff\xfe", b"[" * 9000])) + line[end:]


LINES = st.one_of(
    requests(),
    damaged(),
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"x" * 1_000_002, b'{"id": 1e999}', b"\xef\xbb\xbf{}"]
    ),
)


class Process:
    """`brgsa worker` with a thread that reads its answers."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brgsa.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(EXTENSION), "XDG_CACHE_HOME": str(folder), "BRGSA_CACHE": str(folder)},
        )
        self.answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"event": "end"})

    def send(self, line):
        self.process.stdin.write(line.replace(b"\n", b" ") + b"\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = Process(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.process.stdin.close()
    worker.process.wait(LONGEST_WAIT)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # the worker of one example has met those before it, so a smaller one tells nothing
)
@given(lines=st.lists(LINES, min_size=80, max_size=80))
def test_after_thousands_of_hostile_lines_a_request_is_answered(worker, lines):
    number = next(NUMBERS)
    for line in lines:
        worker.send(line)
    worker.send(json.dumps({"id": number, "request": "weights/list"}).encode())
    while (message := worker.answers.get(timeout=LONGEST_WAIT)).get("id") != number or message["event"] != "result":
        assert message["event"] != "end"
        if message["event"] == "error":
            assert message["code"] in CODES and "\n" not in message["message"], message
    assert message["weights"]
