"""What every abnormality returns: words for the report, and how to paint itself."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brgsa_training.phantom.body import Scene

# Small lesions are drawn near the lung's surface or deeper, in mm.
SUBPLEURAL, DEEP = (8.0, 22.0), (16.0, 40.0)


@dataclass(frozen=True)
class Lesion:
    """One abnormality of one patient.

    Attributes:
        paint: changes the scene's canvas and notes the lesion's mask under the abnormality's name.
        side: "right", "left", "bilateral" or "" where sides mean nothing.
        site: "upper", "middle", "lower" or "".
        size_mm: the largest lesion, 0 where a size means nothing.
    """

    paint: Callable[[Scene], None]
    side: str = ""
    site: str = ""
    size_mm: float = 0.0


def pick(rng: np.random.Generator, *options: str) -> str:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]
