"""How fast training runs, and what it waits for."""

import time

import torch

from brgsa.model import BrgSAConfig
from brgsa_training.data.pairs import Batch
from brgsa_training.pretrain.flops import peak_flops, step_flops


class Meter:
    """Speed of a run: pairs per second, share of time spent waiting for data, share of the processor's peak.

    Args:
        config: of the model.
        shape: voxels of a volume (X, Y, Z).
        device: of this process.
        processes: that share the run.
    """

    def __init__(self, config: BrgSAConfig, shape: tuple[int, ...], device: torch.device, processes: int = 1):
        self.config, self.shape, self.device, self.processes = config, shape, device, processes
        self.peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._since = time.perf_counter()
        self._pairs, self._waited, self._seconds, self._tokens = 0, 0.0, 0.0, 0

    def loaded(self) -> None:
        """A batch has arrived."""
        self._waited += time.perf_counter() - self._since

    def waiting(self) -> None:
        """The next batch is needed from now on."""
        self._since = time.perf_counter()

    def stepped(self, batch: Batch) -> None:
        """A step with this process's share of a batch is done."""
        self._seconds += time.perf_counter() - self._since
        self._pairs += len(batch.cases) * self.processes
        self._tokens = batch.ids.shape[1]

    def numbers(self) -> dict[str, float]:
        """Means since the start of this process, without validation and the writing of checkpoints."""
        speed = self._pairs / self._seconds
        numbers = {"pairs_per_second": speed, "share_waiting_for_data": self._waited / self._seconds}
        if self.peak:
            flops = step_flops(self.config, self.shape, self._tokens)
            numbers["share_of_peak_flops"] = speed * flops / (self.peak * self.processes)
        if self.device.type == "cuda":
            numbers["memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return numbers

    def report(self) -> dict[str, str]:
        """The same as the progress bar shows it."""
        return {name: f"{value:.2f}" if value < 10 else f"{value:.0f}" for name, value in self.numbers().items()}
