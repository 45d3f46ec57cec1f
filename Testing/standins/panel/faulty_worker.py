"""A worker that misbehaves in the way named by its argument; everything else it does like the stub."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "BrgSAExtension"))

from brgsa.errors import OutOfMemoryError
from brgsa.worker import stub
from brgsa.worker.protocol import PROTOCOL_VERSION
from brgsa.worker.server import protocol_streams

FAULT = sys.argv[1]
requests, answers = protocol_streams()


def say(text):
    answers.write(text + "\n")
    answers.flush()


def hello(version=PROTOCOL_VERSION):
    say(json.dumps({"event": "hello", "protocol": version, "version": "0", "pid": os.getpid()}))


def slowly(ends=False):
    """Fractions that rise, slowly; work that is to be cancelled never ends by itself."""
    for step in itertools.count():
        if ends and step == 60:
            return
        yield min(step / 60, 0.99)
        time.sleep(0.05)


class SlowScorer(stub.StubScorer):
    def embed(self, path, *, case, on_progress):
        for fraction in slowly(ends=FAULT == "is slow"):
            on_progress(fraction, "encoding the scan")
        return case


class Worker(stub.StubWorker):
    def open_scorer(self, job):
        scorer = super().open_scorer(job)
        return SlowScorer() if FAULT in ("is slow", "never ends") else scorer

    def _score(self, job):
        if FAULT == "prints rubbish":
            say("Loading checkpoint shards: 100%")
            say('{"half": ')
            say("[1, 2]")
            print("a library prints this")
        elif FAULT == "answers an old request":
            say(json.dumps({"event": "result", "id": job.id - 1, "scores": {}}))
            say(json.dumps({"event": "error", "id": 999, "code": "input", "message": "of long ago"}))
        elif FAULT == "dies":
            os.kill(os.getpid(), 9)
        elif FAULT == "runs out of memory":
            raise OutOfMemoryError("not enough memory on cuda. Use --precision bf16 or fp16, or --device cpu.")
        elif FAULT == "does not heed cancel":
            subprocess.Popen(["sleep", "600"])
            job.progress(0.5, f"stuck with child in group {os.getpgrp()}")
            time.sleep(600)
        return super()._score(job)

    def _heatmap(self, job):
        # a map with its maximum, on the grid of the scan that the test uses
        self.warm(job)
        for fraction in slowly() if FAULT == "never makes a map" else ():
            job.progress(fraction, "following the attention back")
        path = Path(job.values["path"])
        path.write_bytes(Path(os.environ["BRGSA_TEST_HEATMAP"]).read_bytes())
        return {"path": str(path), "maximum": [10.0, 20.0, 30.0]}

    def _report(self, job):
        # what was asked for instead of a report
        self.warm(job)
        for fraction in slowly() if FAULT == "never writes a report" else ():
            job.progress(fraction, "following the attention back")
        Path(job.values["path"]).write_text(json.dumps(job.values), encoding="utf-8")
        return {"path": job.values["path"], "kind": job.values["kind"]}


if FAULT == "speaks another version":
    hello(99)
    time.sleep(600)
elif FAULT == "never starts":
    time.sleep(600)
elif FAULT == "hangs":
    hello()
    threading.Event().wait()
else:
    sys.exit(Worker(requests, answers).run())
