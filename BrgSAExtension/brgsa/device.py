"""The processor that a model runs on, the precision it computes in, and what to say when its memory runs out."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from brgsa.errors import OutOfMemoryError, SetupError, UsageError, is_out_of_memory

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Settings of a computer by which fp32 products are computed in less. oneDNN and MPS read theirs when they are first
# used, and have no call that takes them back, so they are taken out before that.
for _name in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "PYTORCH_MPS_FAST_MATH"):
    os.environ.pop(_name, None)


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
    """Return the precision if the device computes in it. A CPU without bf16 instructions emulates them, slowly.

    Raises:
        UsageError: no such precision, or the device has none of it.
    """
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}. Choose one of {', '.join(PRECISIONS)}.")
    if name == "fp16" and device == "cpu":
        raise UsageError("fp16 needs an accelerator. Use --precision bf16 or fp32 on a CPU.")
    if name == "bf16" and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
        raise UsageError(f"{device} computes no bf16. Use --precision fp16 or fp32.")
    if name != "fp32" and not torch.amp.is_autocast_available(device.partition(":")[0]):
        raise UsageError(f"this version of torch computes only fp32 on {device}. Use --precision fp32.")
    return name


@contextlib.contextmanager
def computing(device: str, precision: str = "fp32") -> Iterator[None]:
    """Compute in this precision and in no other, whatever the process has asked torch for.

    fp32 is IEEE fp32: neither TF32, which torch takes for convolutions on a GPU if nobody says otherwise, nor the
    products of bf16 that `torch.set_float32_matmul_precision` allows on a CPU.
    """
    kind = device.partition(":")[0]
    cast: contextlib.AbstractContextManager = contextlib.nullcontext()
    if torch.amp.is_autocast_available(kind):
        cast = torch.autocast(kind, PRECISIONS[precision], enabled=precision != "fp32")
    with _ieee_fp32(), cast:
        yield


@contextlib.contextmanager
def _ieee_fp32() -> Iterator[None]:
    backends = torch.backends
    if hasattr(backends, "fp32_precision"):  # torch 2.9 and later
        owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        owners += [backends.mkldnn.matmul, backends.mkldnn.conv]
        name, strict = "fp32_precision", "ieee"
    else:
        owners, name, strict = [backends.cudnn], "allow_tf32", False
    before = [getattr(owner, name) for owner in owners]
    try:
        products = torch.get_float32_matmul_precision()
    except RuntimeError:  # a precision was set by the newer names, of which this older one knows nothing
        products = "highest"
    try:
        torch.set_float32_matmul_precision("highest")
        for owner in owners:
            setattr(owner, name, strict)
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, name, value)


@contextlib.contextmanager
def out_of_memory(device: str) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one error that says what helps."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise _memory_error(device) from error


def _memory_error(device: str) -> OutOfMemoryError:
    if device == "cpu":
        return OutOfMemoryError("not enough memory for this model. Close other programs or use a larger machine.")
    return OutOfMemoryError(f"not enough memory on {device}. Use --precision bf16 or fp16, or --device cpu.")
