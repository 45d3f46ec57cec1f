"""The connection to a Ray cluster."""

import logging
import os

from brgsa.errors import SetupError


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
