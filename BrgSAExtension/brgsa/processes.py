"""Processes that work for this one and do not outlive it."""

import contextlib
import importlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

log = logging.getLogger(__name__)


def process_pool(
    workers: int, initializer: Callable[..., Any] | None = None, initargs: tuple = ()
) -> ProcessPoolExecutor:
    """A pool of freshly started processes that end within two seconds of this one, however this one ends.

    They do not hear Ctrl-C, which is this process's to handle.

    Args:
        workers: how many.
        initializer, initargs: called in each at its start.
    """
    end_children_with_this_process()
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (initializer, initargs))


def kill_workers(pool: ProcessPoolExecutor) -> None:
    """End the work in hand of a pool at once, for jobs that take long and lose nothing."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def start_helper(module: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a Python process that runs the function `main` of a module, with pipes for its input and output.

    It ends with this process, however this one ends, and does not hear Ctrl-C. It looks for modules where this process
    does; what it prints on standard error is dropped.

    Args:
        module: its name.
        environment: variables beside those of this process.

    Raises:
        OSError: it could not be started.
    """
    end_children_with_this_process()
    reading, writing = os.pipe()
    places = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 (a text that may not be there)
    try:
        helper = subprocess.Popen(
            [sys.executable, "-c", _HELPER, module, "-" if sys.platform == "win32" else str(reading), *places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            pass_fds=() if sys.platform == "win32" else (reading,),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            pipesize=1 << 20,
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    weakref.finalize(helper, os.close, writing)
    return helper


# The folders of modules first, because Python puts the working folder before them.
_HELPER = """import sys
module, sentinel, sys.path = sys.argv[1], sys.argv[2], sys.argv[3:]
from brgsa.processes import run_helper
run_helper(module, sentinel)"""


def run_helper(module: str, sentinel: str) -> None:
    """What a process that `start_helper` started does."""
    if sentinel != "-":
        end_with_parent(int(sentinel))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    importlib.import_module(module).main()


def end_with_parent(sentinel: int) -> None:
    """End this process as soon as the process that started it has ended; called first in a child.

    Linux ends it whatever it is doing. Elsewhere a thread does, once native code lets Python run; on Windows the job of
    `end_children_with_this_process` is quicker.

    Args:
        sentinel: the reading end of a pipe that the parent alone holds the other end of, or on Windows its handle.
    """
    if sys.platform == "linux":
        import fcntl

        # The sentinel is a pipe that nothing is written to any more: the signal comes when its other end is closed.
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_and_end, args=(sentinel,), daemon=True).start()


def end_children_with_this_process() -> None:
    """On Windows, put this process into a job that ends with it, and with it every process started from now on."""
    global _job
    if sys.platform == "win32" and _job is None:
        try:
            _job = _enter_job()
        except OSError as error:
            log.debug("no job object (%s): processes end a little later than this one", error)


_job: Any = None  # open as long as this process lives


def _start_worker(initializer: Callable[..., Any] | None, initargs: tuple) -> None:
    end_with_parent(multiprocessing.parent_process().sentinel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer:
        initializer(*initargs)


def _wait_and_end(sentinel: Any) -> None:
    with contextlib.suppress(OSError):
        multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _enter_job() -> Any:
    """Make a job object that kills its processes when its last handle is closed, and enter it; return the handle.

    Raises:
        OSError: Windows refused.
    """
    import ctypes
    from ctypes import wintypes

    class BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    kill_on_job_close, extended_limit_information = 0x2000, 9  # winnt.h
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.CreateJobObjectW.restype = kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
    kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    job = kernel32.CreateJobObjectW(None, None)
    limits = ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = kill_on_job_close
    if not (
        job
        and kernel32.SetInformationJobObject(
            job, extended_limit_information, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        and kernel32.AssignProcessToJobObject(job, kernel32.GetCurrentProcess())
    ):
        raise ctypes.WinError(ctypes.get_last_error())
    return job
