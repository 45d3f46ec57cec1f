"""With which Python, and in what surroundings, the worker is started."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXTENSION_FOLDER = Path(__file__).resolve().parents[1]

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
    program = interpreter or slicer_python()
    if not (Path(program).is_file() or shutil.which(program)):
        raise FileNotFoundError(f"{program}: no such Python. Choose another under Setup, Python for inference.")
    variables = dict(os.environ if environment is None else environment)
    if interpreter:
        variables = {key: value for key, value in variables.items() if key not in _SLICER_ONLY}
    # The worker is offline; warnings about forked tokenizers and locale-encoded pipes are not wanted either.
    variables |= {
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUTF8": "1",  # paths in any script, whatever the locale
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    module = "brgsa.stub" if os.environ.get("BRGSA_STUB") else "brgsa.worker"
    # `-m` puts the working folder first on the module path: source checkouts are not on the path of PythonSlicer.
    return Launch((program, "-m", module), variables, str(EXTENSION_FOLDER))
