"""The process in which SimpleITK (GDCM) reads DICOM, so that a file that kills it kills nothing else.

`decoder.py` starts it and asks. A request is a line of JSON; an answer is one, too, and may be followed by voxels.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from brgsa.ct.itk import quiet_simpleitk
from brgsa.ct.source import fits_int16, put_hu
from brgsa.errors import is_out_of_memory

_TAGS = {
    "0008|0008",  # image type
    "0008|0060",  # modality
    "0008|103e",  # series description
    "0018|0050",  # slice thickness
    "0020|000e",  # series UID
    "0020|0011",  # series number
    "0020|0013",  # instance number
    "0020|0032",  # position
    "0020|0037",  # orientation
    "0028|0030",  # pixel spacing
    "0028|0100",  # bits allocated
    "0028|1052",  # rescale intercept
    "0028|1053",  # rescale slope
}
_Answer = tuple[dict[str, Any], Any]  # and the image whose voxels follow


def main() -> None:
    """Answer on standard output until standard input ends."""
    sitk = quiet_simpleitk()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints goes nowhere
    handlers = {"header": _header, "slices": _slices, "frames": _frames}
    _send(answers, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        image = None
        try:
            _limit_memory(request["memory"])
            answer, image = handlers[request["question"]](sitk, request)
        except (RuntimeError, MemoryError) as error:
            answer = {"error": "memory" if is_out_of_memory(error) else "damaged"}
        if image is None:
            _send(answers, answer)
        else:
            _send_voxels(answers, answer, sitk.GetArrayViewFromImage(image), np.dtype(request["dtype"]))


def _send_voxels(answers, answer: dict[str, Any], stored: np.ndarray, dtype: np.dtype) -> None:
    """Send slices or frames one by one as HU: GDCM has taken memory for all of them already."""
    fits = dtype == np.float32 or (stored.dtype.kind in "iu" and fits_int16(stored))
    _send(answers, {**answer, "shape": stored.shape, "fits": bool(fits)})
    for one in stored if fits else ():
        hu = np.empty(one.shape, dtype)
        put_hu(one, hu)
        answers.write(memoryview(hu).cast("B"))
    answers.flush()


def _send(answers, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has now; Linux alone heeds it."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        now = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (now + more, hard))


def _header(sitk, request: Mapping[str, Any]) -> _Answer:
    reader = _reader(sitk, request["files"][0])
    reader.ReadImageInformation()
    # SimpleITK takes the bytes for UTF-8 and marks those that are not, which JSON carries.
    tags = {tag: reader.GetMetaData(tag) for tag in _TAGS if reader.HasMetaDataKey(tag)}
    return {"size": reader.GetSize(), "components": reader.GetNumberOfComponents(), "tags": tags}, None


def _slices(sitk, request: Mapping[str, Any]) -> _Answer:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(request["files"])
    reader.SetOutputPixelType(sitk.sitkInt32 if request["whole"] else sitk.sitkFloat32)
    return {}, reader.Execute()


def _frames(sitk, request: Mapping[str, Any]) -> _Answer:
    image = _reader(sitk, request["files"][0]).Execute()
    return {"direction": image.GetDirection(), "spacing": image.GetSpacing(), "origin": image.GetOrigin()}, image


def _reader(sitk, file: str):
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.SetImageIO("GDCMImageIO")
    return reader
