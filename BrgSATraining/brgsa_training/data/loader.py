"""Batches that are ready when they are needed: threads copy volumes from the memory-mapped cache into few buffers.

Threads, not processes: copying out of a mapped file lets go of Python's lock, nothing is sent between processes, an
error arrives as it is, and containers with little shared memory do. The buffers are used again and again, because fresh
memory of this size costs more time than the copy.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from brgsa_training.data.pairs import Batch, Pair, PairDataset
from brgsa_training.data.sampler import Key, StudyBatches

READY = 2  # batches that are loaded ahead


class BatchLoader:
    """Iterates over the batches of a `StudyBatches`, from its `first_step` on.

    A batch's voxels are valid until the next batch is asked for.

    Args:
        pairs: where pairs come from.
        batches: which pairs make a batch.
        workers: threads; 0 loads each batch when it is asked for.
        pinned: keep buffers in page-locked memory, which an NVIDIA GPU copies from without waiting.
    """

    def __init__(self, pairs: PairDataset, batches: StudyBatches, workers: int = 0, pinned: bool = False):
        self.pairs, self.batches, self.workers, self.pinned = pairs, batches, workers, pinned

    def __iter__(self) -> Iterator[Batch]:
        return self._ahead() if self.workers else self._on_demand()

    def _on_demand(self) -> Iterator[Batch]:
        buffer = None
        for keys in self.batches:
            buffer = self._new_buffer(keys) if buffer is None else buffer
            yield self.pairs.batch(buffer, [self._fill(buffer, row, key) for row, key in enumerate(keys)])

    def _ahead(self) -> Iterator[Batch]:
        keys = iter(self.batches)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="load")
        waiting: deque[tuple[Tensor, list[Future]]] = deque()

        def start(buffer: Tensor, wanted: Sequence[Key]) -> None:
            jobs = [pool.submit(self._fill, buffer, row, key) for row, key in enumerate(wanted)]
            waiting.append((buffer, jobs))

        try:
            for _ in range(READY):
                wanted = next(keys)
                start(self._new_buffer(wanted), wanted)
            spare = self._new_buffer(wanted)
            while True:
                buffer, jobs = waiting.popleft()
                start(spare, next(keys))
                yield self.pairs.batch(buffer, [job.result() for job in jobs])
                spare = buffer
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _new_buffer(self, keys: Sequence[Key]) -> Tensor:
        shape = (len(keys), 1, *self.pairs.shape)
        return torch.empty(shape, dtype=self.pairs.dtype, pin_memory=self.pinned)

    def _fill(self, buffer: Tensor, row: int, key: Key) -> Pair:
        pair = self.pairs[key]
        buffer[row, 0].numpy()[...] = pair.voxels
        return pair
