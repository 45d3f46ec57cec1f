"""The processor that a model runs on, the precision it computes in, and what to say when its memory runs out."""

import contextlib
import re
from collections.abc import Iterator

import torch

from brgsa.errors import OutOfMemoryError, SetupError, UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> str:
    """Return the device to use; "auto" takes the fastest there is.

    Raises:
        UsageError: no such device name.
        SetupError: this machine has none of it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UsageError(f"unknown device {name!r}. Choose one of {', '.join(DEVICES)}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SetupError("this machine has no CUDA device that torch can use. Use --device cpu, see `brgsa doctor`.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise SetupError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s).")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SetupError("this machine has no MPS device. Use --device cpu.")
    return name


def choose_precision(name: str, device: str) -> str:
    """Return the precision of the image encoder; "auto" is bf16 where the processor computes in it.

    Raises:
        UsageError: no such precision, or fp16 on a CPU.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}. Choose one of auto, {', '.join(PRECISIONS)}.")
    if name == "fp16" and device == "cpu":
        raise UsageError("fp16 needs an accelerator. Use --precision bf16 or fp32 on a CPU.")
    return name


def has_bf16(device: str) -> bool:
    """Whether the processor has bf16 matrix instructions (emulated bf16 is slower than fp32)."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@contextlib.contextmanager
def out_of_memory(device: str) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one error that says what helps."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _memory_error(device) from error
    except RuntimeError as error:
        if any(text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory")):
            raise _memory_error(device) from error
        raise


def _memory_error(device: str) -> OutOfMemoryError:
    if device == "cpu":
        return OutOfMemoryError("not enough memory for this model. Close other programs or use a larger machine.")
    return OutOfMemoryError(f"not enough memory on {device}. Use --precision bf16 or fp16, or --device cpu.")
