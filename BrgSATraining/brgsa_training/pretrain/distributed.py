"""One training run on several processes, as `torchrun` starts them: who am I, and how do tensors meet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from brgsa.errors import UsageError


@dataclass(frozen=True)
class World:
    """The processes of a run. Every method works with one process, too, and then does nothing.

    Attributes:
        rank: of this process among all, from 0; process 0 writes the files.
        size: number of processes.
        local_rank: of this process on its machine; it uses the accelerator of that number.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, mine: Tensor) -> Tensor:
        """Put the tensors of all processes one below the other, (B, ...) -> (size * B, ...), with gradient."""
        return mine if self.size == 1 else _Gather.apply(mine, self.rank, self.size)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over processes, in place and without gradient."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes, without gradient."""
        return self.sum(value.detach().clone()) / self.size

    def objects(self, mine: Any) -> list[Any]:
        """What every process gave, in the order of ranks, at every process."""
        if self.size == 1:
            return [mine]
        everyone = [None] * self.size
        dist.all_gather_object(everyone, mine)
        return everyone


class _Gather(torch.autograd.Function):
    """All-gather whose backward brings every process's gradient home (torch's own gather drops it)."""

    @staticmethod
    def forward(ctx, mine: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.count = rank, len(mine)
        everyone = [torch.empty_like(mine) for _ in range(size)]
        dist.all_gather(everyone, mine.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[ctx.rank * ctx.count : (ctx.rank + 1) * ctx.count], None, None


# Groups are kept until the process ends. DistributedDataParallel frees its group with Python's lock held and waits for
# a thread that may be waiting for this lock to free the last tensors: a run could hang when it was done.
_groups: list[dist.ProcessGroup] = []


@contextmanager
def world_from_environment(device: str) -> Iterator[World]:
    """Join the other processes that torchrun (or Slurm through it) started, and leave them at the end.

    Args:
        device: "cuda" or "cpu", which decides between NCCL and Gloo.

    Raises:
        UsageError: the environment is not that of torchrun.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {size} but {', '.join(missing)} is not set. Start several processes with torchrun."
        )
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    if device == "cuda":
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    _groups.append(dist.group.WORLD)
    try:
        yield world
    finally:
        dist.destroy_process_group()
