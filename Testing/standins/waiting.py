"""Waiting for what a test waits for. No test asserts a time: on a busy machine every time is possible."""

import time
from collections.abc import Callable

LONGEST_WAIT = 600.0
"""Seconds after which a test gives up: there for what never happens, not to measure."""


def nothing() -> None:
    pass


def wait(until: Callable[[], object], meanwhile: Callable[[], object] = nothing) -> None:
    """Wait for something to become true, doing `meanwhile` again and again."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {LONGEST_WAIT:g} s in vain")
        meanwhile()
        time.sleep(0.01)
