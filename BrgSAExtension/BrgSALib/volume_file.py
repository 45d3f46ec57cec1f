"""Writing voxels as an uncompressed NRRD file, off the main thread.

Slicer's own writer blocks the main thread for as long as the disk takes; `file.write` of a large buffer does not hold
Python's lock, so a thread can do it while the panel stays alive.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "float32": "float",
    "float64": "double",
}
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Snapshot:
    """The voxels of a volume node and where they lie, taken on the main thread.

    Attributes:
        voxels: (K, J, I), a view of the node's own memory (VTK keeps it alive for as long as the view lives).
        ijk_to_lps: 4x4, index (I, J, K, 1) to LPS world mm, linear transforms included.
        name: of the node.
        key: stands for these voxels in this place; changes when either does.
    """

    voxels: np.ndarray
    ijk_to_lps: np.ndarray
    name: str
    key: str


def supports(dtype: np.dtype) -> bool:
    """Whether this pixel type can be written."""
    return dtype.name in _TYPES


def write_nrrd(snapshot: Snapshot, path: str | os.PathLike, on_progress: Callable[[float], None]) -> None:
    """Write a snapshot to `path`.

    Args:
        on_progress: called with the fraction written; what it raises ends the writing and removes the file.

    Raises:
        OSError: no space, no permission.
    """
    voxels, matrix = np.ascontiguousarray(snapshot.voxels), snapshot.ijk_to_lps
    directions = " ".join(_vector(matrix[:3, axis]) for axis in range(3))
    header = (
        "NRRD0004\n"
        f"type: {_TYPES[voxels.dtype.name]}\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(str(size) for size in reversed(voxels.shape))}\n"
        f"space directions: {directions}\nspace origin: {_vector(matrix[:3, 3])}\n"
        f"kinds: domain domain domain\nendian: {sys.byteorder}\nencoding: raw\n\n"
    )
    path = Path(path)
    try:
        with path.open("wb") as file:
            file.write(header.encode("ascii"))
            data = memoryview(voxels).cast("B")
            for start in range(0, len(data), _CHUNK_BYTES):
                on_progress(start / len(data))
                file.write(data[start : start + _CHUNK_BYTES])
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
