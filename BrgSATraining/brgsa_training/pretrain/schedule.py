"""The learning rate of every step."""

import math

from brgsa_training.pretrain.recipe import ScheduleConfig


def rate_share(step: int, steps: int, schedule: ScheduleConfig) -> float:
    """The share of the learning rate that step `step` (from 0) of `steps` uses."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return 1.0
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    return schedule.final_share + (1 - schedule.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
