"""Damage scans at random and read them as a batch does; say what became of each.

    python Testing/faults/fuzz_readers.py --files 20000 --seed 1
    python Testing/faults/fuzz_readers.py --seed 1 --only 4711 --keep FOLDER    make one of them again, and keep it

A file is made from the seed and its number alone (`scan_damage.py`). Its case is found, fingerprinted, read and
checked. That must end with a volume or with one of the documented errors, in one line, within `--seconds`, and with a
resident memory (of this process and of the one that decodes DICOM) of at most 1 GB and 4 bytes a voxel. The exit code
is 1 where one of them does not.
"""

import argparse
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from scan_damage import make_scan

from brgsa.ct.cases import find_cases
from brgsa.ct.checks import check_ct
from brgsa.ct.decoder import DECODER, ReaderDiedError
from brgsa.ct.volume import read_ct
from brgsa.errors import BrgSAError, OutOfMemoryError

MOST_MEMORY, MEMORY_A_VOXEL = 1_000_000_000, 4
WINDOW_MM = (360.0, 360.0, 360.0)
CHECKED_VOXELS = 1_000_000
OUTCOMES = ("read", "refused", "out of memory", "decoder died")


def read(path: Path) -> tuple[str, int, str]:
    """Do with a path what a batch does; return the outcome, the number of voxels read and the message."""
    try:
        for case in find_cases([path]):
            case.has_changed_since(case.fingerprint())
            volume = read_ct(case.path, case.series)
            if volume.voxels.size <= CHECKED_VOXELS:
                check_ct(volume, WINDOW_MM)
    except BrgSAError as error:
        message = str(error)
        if "\n" in message or "\r" in message or "\x1b" in message:
            return "message of several lines or with control characters", 0, message
        if isinstance(error, ReaderDiedError):
            return "decoder died", 0, message
        return "out of memory" if isinstance(error, OutOfMemoryError) else "refused", 0, message
    except Exception as error:
        return f"unexpected {type(error).__name__}", 0, str(error)
    return "read", volume.voxels.size, ""


def serve(seed: int, numbers: Iterator[int], folder: Path, longest: float) -> None:
    """Make and read files one after the other, with a line of JSON about each.

    What took long is read again: other programs may have taken the processor.
    """
    read(make_scan(seed, 0, folder)[1])  # what is imported and started at the first file is not the files' time
    for number in numbers:
        kind, path = make_scan(seed, number, folder)
        forget_peaks()
        seconds = []
        while not seconds or (min(seconds) > longest and len(seconds) < 3):
            began = time.monotonic()
            outcome, voxels, message = read(path)
            seconds.append(time.monotonic() - began)
        row = {"number": number, "kind": kind, "outcome": outcome, "seconds": min(seconds)}
        row |= {"memory": peak_memory(), "voxels": voxels, "message": message}
        print(json.dumps(row), flush=True)


def forget_peaks() -> None:
    for process in processes():
        Path(process, "clear_refs").write_text("5")


def peak_memory() -> int:
    """Bytes that were resident at most since `forget_peaks`, of both processes together."""
    lines = [line for process in processes() for line in Path(process, "status").read_text().splitlines()]
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def processes() -> list[str]:
    if not Path("/proc/self/clear_refs").exists():
        return []
    process = DECODER.process
    return ["/proc/self"] + ([] if process is None or process.poll() is not None else [f"/proc/{process.pid}"])


def faults_of(row: dict[str, Any], seconds: float) -> list[str]:
    """What is wrong with what became of a file."""
    faults = [] if row["outcome"] in OUTCOMES else [row["outcome"]]
    faults += ["too slow"] * (row["seconds"] > seconds)
    faults += ["too much memory"] * (row["memory"] > MOST_MEMORY + MEMORY_A_VOXEL * row["voxels"])
    return faults


def rows_of(seed: int, files: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Read the files in a process that is started again after the file that it died of, or that held it up."""
    number = 1
    while number <= files:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--seed", str(seed), "--seconds", str(seconds), "--serve", str(number), str(files), folder]
            process = subprocess.Popen([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True)
            lines: queue.Queue[str] = queue.Queue()
            threading.Thread(target=pass_on, args=(process.stdout, lines), daemon=True).start()
            while number <= files:
                try:
                    line = lines.get(timeout=10 * seconds + 60)
                except queue.Empty:
                    line = ""
                if not line:
                    process.kill()
                    outcome = f"the process ended ({process.wait()})"
                    yield {"number": number, "kind": "?", "outcome": outcome, "seconds": 0.0, "memory": 0, "voxels": 0}
                    number += 1
                    break
                row = json.loads(line)
                number = row["number"] + 1
                yield row
            process.wait()


def pass_on(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Hand over the lines of a process, and an empty one at the end."""
    for line in stream:
        lines.put(line)
    lines.put("")


def run(seed: int, files: int, seconds: float) -> int:
    """Read `files` files and print a table of what became of them; return how many went wrong."""
    counts: dict[str, Counter] = defaultdict(Counter)
    slowest, largest, wrong = Counter(), Counter(), 0
    for row in rows_of(seed, files, seconds):
        kind = row["kind"].split()[0]
        counts[kind][row["outcome"]] += 1
        slowest[kind] = max(slowest[kind], row["seconds"])
        largest[kind] = max(largest[kind], row["memory"] - MEMORY_A_VOXEL * row["voxels"])
        if faults := faults_of(row, seconds):
            wrong += 1
            print(
                f"seed {seed} file {row['number']} ({row['kind']}): {', '.join(faults)}: {json.dumps(row)}", flush=True
            )
    print(f"seed {seed}, {files} files")
    print(
        f"{'kind':10} {'files':>7} " + " ".join(f"{name:>14}" for name in (*OUTCOMES, "wrong", "slowest s", "most MB"))
    )
    for kind, outcomes in sorted(counts.items()):
        other = outcomes.total() - sum(outcomes[name] for name in OUTCOMES)
        cells = [*(outcomes[name] for name in OUTCOMES), other, f"{slowest[kind]:.2f}", round(largest[kind] / 1e6)]
        print(f"{kind:10} {outcomes.total():>7} " + " ".join(f"{cell:>14}" for cell in cells))
    print(f"{wrong} went wrong; most MB is without the 4 bytes a voxel")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="longest time for one file")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make and read this file alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where --only leaves it")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        first, last, folder = arguments.serve
        serve(arguments.seed, iter(range(int(first), int(last) + 1)), Path(folder), arguments.seconds)
        return 0
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            serve(arguments.seed, iter([arguments.only]), Path(folder), arguments.seconds)
            if arguments.keep:
                shutil.copytree(folder, arguments.keep, dirs_exist_ok=True)
        return 0
    return 1 if run(arguments.seed, arguments.files, arguments.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
