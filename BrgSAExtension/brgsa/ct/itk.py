"""SimpleITK, kept quiet."""

import functools
from pathlib import Path
from types import ModuleType

from brgsa.errors import InputError


@functools.cache
def quiet_simpleitk() -> ModuleType:
    """Import SimpleITK with its warnings off: what matters in them becomes a message or a finding."""
    import SimpleITK as sitk  # noqa: N813 (its customary name)

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def sitk_name(path: Path) -> str:
    """The path as SimpleITK takes it.

    Raises:
        InputError: the name is not UTF-8; SimpleITK would end the process.
    """
    name = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not UTF-8, so SimpleITK cannot open it; rename it.") from error
    return name
