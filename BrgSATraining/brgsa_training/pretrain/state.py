"""The state of a run beside model and optimizer: how far it is, and where its random generators are."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Progress:
    """How far a run is, in plain values that a checkpoint keeps under the same names.

    Attributes:
        step: how many are done.
        best_step, best: when validation gave its smallest number, and that number.
        without_gain: validations since then.
        history: of every validation: step, epoch, mean loss of the steps before it, and what it gave.
        losses: of the steps since the last validation.
    """

    step: int = 0
    best_step: int = 0
    best: float | None = None
    without_gain: int = 0
    history: list[list] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def stepped(self, loss: float) -> None:
        """Take note of a step."""
        self.step += 1
        self.losses.append(loss)

    def judged(self, judgement: float, epoch: float) -> bool:
        """Take note of a validation, and say whether it is the best so far, which one without a number never is."""
        better = not math.isnan(judgement) and (self.best is None or judgement < self.best)
        if better:
            self.best, self.best_step, self.without_gain = judgement, self.step, 0
        else:
            self.without_gain += 1
        train_loss, self.losses = sum(self.losses) / max(1, len(self.losses)), []
        self.history.append([self.step, round(epoch, 3), train_loss, judgement])
        return better


def random_state(device: torch.device) -> dict[str, Any]:
    """Where torch's random generators of this process are, on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Bring the generators to where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    elif "mps" in state and device.type == "mps":
        torch.mps.set_rng_state(state["mps"])
