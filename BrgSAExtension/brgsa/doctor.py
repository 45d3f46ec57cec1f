"""What this machine has and lacks for scoring."""

import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import brgsa
from brgsa.errors import first_line
from brgsa.files.embedding_cache import cache_folder

# import name -> name on the package index
PACKAGES = {
    "numpy": "numpy",
    "torch": "torch",
    "transformers": "transformers",
    "nibabel": "nibabel",
    "SimpleITK": "SimpleITK",
    "isal": "isal",
    "tqdm": "tqdm",
}
MEMORY_FOR_RELEASED_WEIGHTS = 3.5e9  # bytes, measured by `make bench`


def diagnose() -> dict[str, Any]:
    """Look at packages, devices, memory and weights.

    Returns:
        "ready": whether scans can be scored; "rows": what, found, state ("ok", "missing", "note"); "advice": sentences.
    """
    rows, advice = [], []

    def add(what: str, found: Any, state: str = "ok", cure: str | None = None) -> None:
        rows.append({"what": what, "found": str(found), "state": state})
        if cure:
            advice.append(cure)

    add("brgsa", brgsa.__version__)
    add("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    for name, package in PACKAGES.items():
        if name in missing:
            add(package, "not installed", "missing")
        else:
            add(package, _version(package))
    if missing:
        names = " ".join(PACKAGES[name] for name in missing)
        advice.append(f"Install what is missing: python -m pip install {names} (in 3D Slicer: slicer.util.pip_install)")

    what, size = _memory()
    if size is None:
        add(what, "unknown", "note")
    else:
        low = size < MEMORY_FOR_RELEASED_WEIGHTS
        cure = "Full-size weights need about 3.5 GB of free memory; close other programs first." if low else None
        add(what, f"{size / 1e9:.1f} GB", "note" if low else "ok", cure)
    devices = "torch" not in missing and _add_devices(add)
    ready = not missing and _add_weights(add) and devices
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = os.access(existing, os.W_OK)
    cure = (
        None if writable else f"Make {existing} writable or set BRGSA_CACHE to another folder; scoring works without."
    )
    found = f"{folder}, {shutil.disk_usage(existing).free / 1e9:.0f} GB free"
    add("cache", found, "ok" if writable else "note", cure)
    return {"ready": ready, "rows": rows, "advice": advice}


def _add_devices(add) -> bool:
    """Add what torch can compute on; say whether torch can be loaded."""
    try:
        import torch

        from brgsa.device import choose_device
    except (ImportError, OSError) as error:
        cure = "Install torch again: python -m pip install --force-reinstall torch (in 3D Slicer: extension PyTorch)"
        add("torch", f"cannot be loaded: {first_line(error)}", "missing", cure)
        return False
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 1e9
        add(f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB")
    device = choose_device("auto")
    add("device in use", f"{device}, {torch.get_num_threads()} threads")
    return True


def _add_weights(add) -> bool:
    from brgsa.errors import BrgSAError
    from brgsa.weights.folder import open_weights, registry

    usable = False
    for row in registry().values():
        if row.folder is None:
            add(f"weights {row.name}", "not shipped", "note", f"{row.name}: {row.how_to_get}")
            continue
        try:
            weights = open_weights(row.name)
            add(f"weights {row.name}", f"whole, {weights.notice or 'trained'}")
            usable = True
        except BrgSAError as error:
            add(f"weights {row.name}", "damaged", "missing", str(error))
    return usable


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "version unknown"


def _memory() -> tuple[str, int | None]:
    """The bytes that programs can still take; all there are, or None, where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return "free memory", int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return "memory", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "memory", None
