"""The numbers of the Slicer panel, measured on the stand-in with the real worker.

`python Testing/benchmarks/bench_slicer.py [SCAN]`; by default on a phantom of 512 x 512 x 300 voxels, the size of
a usual chest CT.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTING / "standin"))
PRIVATE = tempfile.TemporaryDirectory(prefix="brgsa-bench-")  # removed when the process ends
os.environ["BRGSA_CACHE"] = os.environ["XDG_CONFIG_HOME"] = PRIVATE.name

ROWS = []


def note(what, value, goal, unit):
    ROWS.append((what, f"{value:.3f} {unit}", f"at most {goal} {unit}", "ok" if value <= goal else "MISSED"))
    print(*ROWS[-1], sep=" | ", flush=True)


def opening():
    """Seconds from making the widget to its first picture, in a process of its own."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import module_host as m\n"
        "m.slicer.app.processEvents(); start = time.perf_counter(); host = m.Host(); m.slicer.app.processEvents()\n"
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(TESTING / "standin")], capture_output=True, text=True, check=True
        )
        seconds, torch = done.stdout.split()
        assert torch == "False"
        times.append(float(seconds))
    note("opening the panel (best of 3, no torch)", min(times), 0.5, "s")


class Ticks:
    """A timer of 20 ms that remembers how long it was kept waiting."""

    def __init__(self, qt):
        self.longest, self._last = 0.0, time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(20)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def _tick(self):
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now

    def stop(self):
        self._timer.stop()
        return self.longest


def load(slicer, logic):
    if len(sys.argv) > 1:
        return slicer.util.loadVolume(sys.argv[1])
    import numpy as np

    from BrgSALib import phantom, scene

    voxels = np.kron(phantom.make_phantom(), np.ones((5, 4, 4), np.int16))[:300]
    return scene.add_volume(voxels, (0.75, 0.75, 1.0), "CT")


def panel():
    """Everything that needs the panel with a warm worker."""
    import module_host
    import qt
    import slicer

    from BrgSALib import scene

    host = module_host.Host()
    host.parameters.inputVolume = load(slicer, host.logic)
    size = "x".join(map(str, host.parameters.inputVolume.GetImageData().GetDimensions()))
    for temperature in ("cold", "warm"):
        ticks = Ticks(qt)
        started = time.monotonic()
        host.score()
        seconds = time.monotonic() - started
        note(f"longest wait of a 20 ms timer while {size} is scored, worker {temperature}", ticks.stop(), 0.1, "s")
        print(f"  scored in {seconds:.1f} s: {host.status}")
        if temperature == "cold":
            slicer.util.arrayFromVolumeModified(host.parameters.inputVolume)  # as if it were another scan
    table, rows = host.ui.abnormalityTable, host.panel.abnormality_rows
    edits = {
        "switching one off": lambda: table.item(0, 0).setCheckState(qt.Qt.Unchecked),
        "switching it on": lambda: table.item(0, 0).setCheckState(qt.Qt.Checked),
        "editing a prompt": lambda: table.item(1, 2).setText("calcified plaques in the wall of the aorta"),
        "adding one": lambda: rows.add(["Fracture of a rib with displacement"]),
    }
    for what, edit in edits.items():
        settled = time.monotonic() + 0.3
        host.pump(lambda settled=settled: time.monotonic() > settled)
        before = scene.read_result(host.parameters.resultTable)
        start = time.perf_counter()
        edit()
        host.pump(lambda before=before: scene.read_result(host.parameters.resultTable) != before)
        note(f"{what}: until the scores are updated", time.perf_counter() - start, 0.3, "s")
    combo = host.ui.presetComboBox
    combo.setCurrentIndex(combo.findData("gpt4o-88"))
    combo.activated.emit(combo.currentIndex)
    host.pump(lambda: host.ui.resultTable.rowCount == 88)
    result = scene.read_result(host.parameters.resultTable)
    times = []
    for _ in range(5):
        host.panel._results.show([])
        start = time.perf_counter()
        host.panel._results.show(result["scores"])
        slicer.app.processEvents()
        times.append(time.perf_counter() - start)
    note("table filled with 88 abnormalities, painted (median of 5)", sorted(times)[2], 0.1, "s")

    host.panel._clock = lambda: time.monotonic() + 10  # the guard against double clicks
    for what, precision, goal in (
        ("cancel while a scan is scored: worker idle again", "fp32", 1.0),
        ("cancel while a model is loaded: idle or ended", "bf16", 4.0),
    ):
        host.logic.settings.precision = precision
        slicer.util.arrayFromVolumeModified(host.parameters.inputVolume)
        start = []

        def cancel_early(start=start):
            if not start and host.ui.progressBar.value > 100:  # the worker has it
                start.append(time.perf_counter())
                host.ui.scoreButton.click()
            return host.ui.scoreButton.text == "Score"

        host.ui.scoreButton.click()
        host.pump(cancel_early)
        note(what, time.perf_counter() - start[0], goal, "s")
    pid = host.logic._session.client.process_id
    host.close()
    return pid


def processes():
    """How fast process trees go."""
    from BrgSALib.launch import EXTENSION_FOLDER, Launch
    from BrgSALib.worker_client import WorkerClient

    program = (sys.executable, str(TESTING / "standin" / "faulty_worker.py"), "does not heed cancel")
    client = WorkerClient(lambda: Launch(program, os.environ, str(EXTENSION_FOLDER)))
    heard, ends = [], []
    number = client.request(
        "score",
        ends.append,
        lambda *args: ends.append(args),
        lambda fraction, stage: heard.append(stage),
        scan="a",
        path="x",
        abnormalities=[{"name": "Emphysema"}],
    )
    while not any("stuck" in stage for stage in heard):
        client.poll()
    pid, start = client.process_id, time.perf_counter()
    client.cancel(number)
    while not ends or group_alive(pid):
        client.poll()
        time.sleep(0.005)
    note("a worker that ignores cancel: process tree gone after", time.perf_counter() - start, 4.0, "s")

    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from BrgSALib.launch import worker_launch; from BrgSALib.worker_client import WorkerClient\n"
        "client, heard = WorkerClient(worker_launch), []\n"
        "client.request('weights/list', heard.append, print)\n"
        "while not heard: client.poll(); time.sleep(0.01)\n"
        "print(client.process_id, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(EXTENSION_FOLDER)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    start = time.perf_counter()
    parent.wait()
    while group_alive(pid):
        time.sleep(0.005)
    note("worker gone after kill -9 of its parent", time.perf_counter() - start, 5.0, "s")


def group_alive(group):
    """Whether a process of this group lives; zombies do not count."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


if __name__ == "__main__":
    opening()
    panel()
    processes()
    width = max(len(row[0]) for row in ROWS)
    print()
    for row in ROWS:
        print(f"{row[0]:<{width}}  {row[1]:>10}  {row[2]:<16} {row[3]}")
