"""BrgSA: score a chest CT against abnormalities written in plain words.

For example:

    from brgsa import AbnormalityList, Scorer
    print(Scorer.from_pretrained("phantom").score("ct.nii.gz", AbnormalityList.preset("ct-rate-18")))
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Names are imported when first used, so that `import brgsa` costs nothing and brings no torch.
_HOMES = {
    "Abnormality": "brgsa.abnormalities",
    "AbnormalityList": "brgsa.abnormalities",
    "CTVolume": "brgsa.ct.volume",
    "Scorer": "brgsa.scoring",
    "ScanScores": "brgsa.scores",
    "check_ct": "brgsa.ct.checks",
    "read_ct": "brgsa.ct.volume",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
