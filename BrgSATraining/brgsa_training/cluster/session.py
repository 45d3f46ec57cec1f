"""The connection to a Ray cluster."""

import logging
import os
from collections.abc import Callable
from typing import Any

from brgsa.errors import BrgSAError, SetupError


def connect():
    """Return the module `ray`, connected to the cluster of RAY_ADDRESS, or to one on this machine.

    Raises:
        SetupError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a run leaves the machine
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise SetupError("this needs Ray. Install it: python -m pip install 'brgsa[cluster]'") from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise SetupError(f"no Ray cluster at {address}. Start one, or unset RAY_ADDRESS.") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def answer(work: Callable[[], Any]) -> dict[str, list]:
    """What a worker sends back: its result, or an error of ours, which Ray would wrap into one of its own."""
    try:
        return {"result": [work()], "error": []}
    except BrgSAError as error:
        return {"result": [], "error": [error]}


def result_of(answer: dict[str, list]) -> Any:
    """The result in an answer.

    Raises:
        BrgSAError: the error in it.
    """
    for error in answer["error"]:
        raise error
    return answer["result"][0]
