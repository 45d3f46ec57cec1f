"""Choosing a processor, and saying in one way that memory ran out."""

import pytest

from brgsa.device import choose_device, out_of_memory
from brgsa.errors import OutOfMemoryError, UsageError


@pytest.mark.parametrize("name", ["", "tpu", "auto:1", "cpu:1", "cuda:", "cuda:x", "cuda:\N{SUPERSCRIPT TWO}", "CPU"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(UsageError, match="unknown device"):
        choose_device(name)


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "MPS backend out of memory (MPS allocated: 5 GB, other allocations: 1 GB, max allowed: 9 GB).",
        "CUDA error: out of memory",
    ],
)
def test_every_way_of_running_out_of_memory_is_one_error(text):
    with pytest.raises(OutOfMemoryError), out_of_memory("mps"):
        raise RuntimeError(text)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape"), out_of_memory("cpu"):
        raise RuntimeError("shape mismatch")
