"""What belongs to the machine rather than to the scene: Slicer's settings under `BrgSA/`."""

import json
from typing import Any, ClassVar

import qt


class Settings:
    """Choices that outlive the scene. Attributes read and write Slicer's settings at once.

    Attributes:
        interpreter: Python for inference; empty is Slicer's own.
        weights: name or folder.
        device, precision: as `brgsa score` takes them.
        accepted_licences: checksums of the weights whose licence the user accepted.
        weights_folders: folders that were chosen or made by an import.
        index: folder of the index for similar cases.
    """

    _DEFAULTS: ClassVar[dict[str, Any]] = {
        "interpreter": "",
        "weights": "phantom",
        "device": "auto",
        "precision": "fp32",
        "accepted_licences": (),
        "weights_folders": (),
        "index": "",
    }

    def __getattr__(self, name: str) -> Any:
        if name not in self._DEFAULTS:
            raise AttributeError(name)
        default = self._DEFAULTS[name]
        value = qt.QSettings().value(f"BrgSA/{name}")
        if not isinstance(value, str):
            return default
        if not isinstance(default, tuple):
            return value
        try:
            return tuple(str(each) for each in json.loads(value))
        except (ValueError, TypeError):
            return default

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._DEFAULTS:
            raise AttributeError(name)
        text = json.dumps(list(value)) if isinstance(self._DEFAULTS[name], tuple) else str(value)
        qt.QSettings().setValue(f"BrgSA/{name}", text)

    def accept_licence(self, checksum: str) -> None:
        """Remember that the user accepted the licence of the weights with this checksum."""
        if checksum not in self.accepted_licences:
            self.accepted_licences = (*self.accepted_licences, checksum)
