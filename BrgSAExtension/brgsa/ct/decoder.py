"""What asks the process in which SimpleITK reads DICOM files, and starts another one when it has died.

The first question starts it; it answers the later ones, too, and ends with this process.
"""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from brgsa.ct.itk import sitk_name
from brgsa.ct.source import file_size
from brgsa.errors import InputError, OutOfMemoryError, SetupError
from brgsa.processes import start_helper

# Bytes that decoding may take beside the voxels; seconds for an answer, and from the end of the answers to the exit.
_MEMORY = 500_000_000
_HEADER_MEMORY = 50_000_000
_LONGEST = 60.0
_SECONDS_A_VOXEL = 1e-5
_GRACE = 2.0
# Memory of large files goes back to the system when they are done (glibc); that of slices is kept, which is faster.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "32000000", "MALLOC_TRIM_THRESHOLD_": "64000000"}
_LONGEST_LINE = 1 << 20


class DamagedError(Exception):
    """SimpleITK cannot read a file."""


class ReaderDiedError(InputError):
    """The process that read a file died of it."""


class Decoder:
    """Asks one process, one question at a time; threads wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.process: Any = None
        self._owner = 0  # a fork of this process needs a decoder of its own
        self._deadline = float("inf")

    def header(self, path: Path) -> Mapping[str, Any]:
        """The header of a DICOM image: its "size", "components" (numbers per voxel) and "tags" by "group|element".

        Raises:
            DamagedError: it is none, or cannot be read.
            ReaderDiedError: the process died of it.
            InputError: its name is not UTF-8.
        """
        # No header takes more memory than a few times its file, whatever lengths stand in it.
        return self._ask("header", [path], _HEADER_MEMORY + 3 * file_size(path))

    def slices(self, paths: Iterable[Path], whole: bool, hu: np.ndarray) -> bool:
        """Decode slices into a C-contiguous array (slices, rows, columns), int16 or float32.

        Args:
            paths: one of each slice.
            whole: the rescaled values are whole numbers.
            hu: filled, unless int16 is too small; then the answer is False.

        Raises:
            DamagedError, ReaderDiedError: one of them cannot be decoded.
            OutOfMemoryError: decoding takes more memory than such slices should.
        """
        return self._ask("slices", list(paths), _MEMORY, hu, whole=whole)["fits"]

    def frames(self, path: Path, hu: np.ndarray) -> Mapping[str, Any]:
        """Decode a multi-frame file into such an array (frames, rows, columns).

        Returns whether it "fits" into int16, and the "direction", "spacing" and "origin" that GDCM makes of it.

        Raises:
            DamagedError, ReaderDiedError, OutOfMemoryError: as `slices`.
        """
        # GDCM takes four times what the pixels take in the file; what a small file unfolds to has to do with less.
        return self._ask("frames", [path], _MEMORY + 2 * hu.size + 4 * file_size(path), hu)

    def _ask(
        self, question: str, paths: list[Path], memory: int, hu: np.ndarray | None = None, **more: Any
    ) -> Mapping[str, Any]:
        files = [sitk_name(Path(os.path.abspath(path))) for path in paths]  # noqa: PTH100 (links stay)
        request = {"question": question, "files": files, "memory": memory, **more}
        if hu is not None:
            request["dtype"] = hu.dtype.name
        with self._lock:
            process = self._started()
            self._deadline = time.monotonic() + _LONGEST + _SECONDS_A_VOXEL * (0 if hu is None else hu.size)
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                answer = _line(process.stdout)
                if hu is not None and answer.get("fits"):
                    if tuple(answer["shape"]) != hu.shape:
                        raise EOFError
                    _read_into(process.stdout, hu)
            except (OSError, EOFError, ValueError) as error:
                ending = self._how_it_ended()
                raise ReaderDiedError(f"{paths[0]}: what read it {ending}; it is damaged: export it again.") from error
            except BaseException:
                self._end()
                raise
            finally:
                self._deadline = float("inf")
        if answer.get("error") == "memory":
            raise OutOfMemoryError(f"{paths[0]}: takes more memory than a file of its kind should; export it again.")
        if answer.get("error"):
            raise DamagedError
        return answer

    def _started(self) -> Any:
        if self.process is None or self._owner != os.getpid() or self.process.poll() is not None:
            try:
                self.process, self._owner = start_helper("brgsa.ct.decoder_process", _ENVIRONMENT), os.getpid()
                _line(self.process.stdout)
            except (OSError, EOFError) as error:
                reason = f" ({error})" if str(error) else ""
                message = (
                    f"the process that reads DICOM files does not start{reason}; `brgsa doctor` says what is missing."
                )
                raise SetupError(message) from error
            threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()
        return self.process

    def _watch(self, process: Any) -> None:
        """End a process that does not answer; nothing else can interrupt native code that hangs."""
        while process.poll() is None:
            time.sleep(1.0)
            if process is self.process and time.monotonic() > self._deadline:
                process.kill()

    def _how_it_ended(self) -> str:
        late = time.monotonic() > self._deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        code = self._end()
        return "gave no answer for a long time" if late else f"ended (exit code {code})"

    def _end(self) -> int:
        process, self.process = self.process, None
        process.kill()
        process.stdout.close()
        with contextlib.suppress(OSError):  # what it did not take
            process.stdin.close()
        return process.wait()


DECODER = Decoder()


def _line(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def _read_into(stream: IO[bytes], voxels: np.ndarray) -> None:
    target = memoryview(voxels).cast("B")
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled:])
        if not count:
            raise EOFError
        filled += count
