"""With which Python, and in what surroundings, processes are started, and how they are ended with their children."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXTENSION_FOLDER = Path(__file__).resolve().parents[1]
# Beside the module where the extension is installed; a source checkout has it in a folder of its own.
TRAINING_FOLDERS = (EXTENSION_FOLDER, EXTENSION_FOLDER.parent / "BrgSATraining")
_WINDOWS = sys.platform == "win32"

# Slicer sets these for its own Python; another Python would load Slicer's libraries because of them.
_SLICER_ONLY = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PIP_REQUIRE_VIRTUALENV")


@dataclass(frozen=True)
class Launch:
    """Arguments for `subprocess.Popen`."""

    args: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str


def slicer_python() -> str:
    """The Python that comes with Slicer, as a program to start; this process's own Python outside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def worker_launch(interpreter: str = "", environment: Mapping[str, str] | None = None) -> Launch:
    """How to start `brgsa worker`.

    Args:
        interpreter: program that runs it; empty means Slicer's own Python.
        environment: what to start from, usually the environment that Slicer itself was started in.

    Raises:
        FileNotFoundError: there is no such interpreter.
    """
    module = "brgsa.worker.stub" if os.environ.get("BRGSA_STUB") else "brgsa.worker.server"
    # `-m` puts the working folder first on the module path: source checkouts are not on the path of PythonSlicer.
    return _launch(interpreter, environment, ("-m", module), EXTENSION_FOLDER)


def report_check_launch(
    arguments: Sequence[str], interpreter: str = "", environment: Mapping[str, str] | None = None
) -> Launch:
    """How to start `brgsa-training check-report` with some arguments; otherwise as `worker_launch`.

    Raises:
        FileNotFoundError: there is no such interpreter, or the package brgsa_training is missing.
    """
    folder = next((each for each in TRAINING_FOLDERS if (each / "brgsa_training" / "__main__.py").is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            "The report check needs the folder brgsa_training, which is missing from this installation. Install the "
            "extension BrgSA again."
        )
    launch = _launch(interpreter, environment, ("-m", "brgsa_training", "check-report", *arguments), folder)
    path = [str(EXTENSION_FOLDER), launch.environment.get("PYTHONPATH", "")]
    variables = {**launch.environment, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return Launch(launch.args, variables, launch.folder)


def start(launch: Launch) -> subprocess.Popen:
    """Start a process with pipes for text, in a group of its own.

    Raises:
        OSError: it cannot be started.
    """
    options: dict[str, Any] = {"start_new_session": True}
    if _WINDOWS:
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return subprocess.Popen(
        launch.args,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(launch.environment),
        cwd=launch.folder,
        encoding="utf-8",
        errors="replace",
        **options,
    )


def kill_group(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    if _WINDOWS:
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
            check=False,
        )
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    # Reaping takes a moment that the main thread does not have.
    threading.Thread(target=process.wait, daemon=True).start()


def _launch(interpreter: str, environment: Mapping[str, str] | None, arguments: Sequence[str], folder: Path) -> Launch:
    program = interpreter or slicer_python()
    if not (Path(program).is_file() or shutil.which(program)):
        raise FileNotFoundError(f"{program}: no such Python. Choose another under Setup, Python for inference.")
    variables = dict(os.environ if environment is None else environment)
    if interpreter:
        variables = {key: value for key, value in variables.items() if key not in _SLICER_ONLY}
    # Nothing here goes online; warnings about forked tokenizers and locale-encoded pipes are not wanted either.
    variables |= {
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUTF8": "1",  # paths in any script, whatever the locale
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return Launch((program, *arguments), variables, str(folder))
