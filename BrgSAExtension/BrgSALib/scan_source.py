"""Where a volume of the scene came from: a file, or a series in Slicer's DICOM database."""

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

DICOM_ATTRIBUTE = "DICOM.instanceUIDs"  # Slicer's own, set when it loads a series


def dicom_problem(volume: Any) -> str | None:
    """Why no DICOM SR can be written for a volume, in one sentence, or None. Looks at the first image only."""
    uids = _instance_uids(volume)
    if not uids:
        return _("The scan was not loaded from DICOM. A DICOM SR belongs to the study of DICOM images.")
    if not _files(uids[:1]):
        return _("The DICOM files of the scan are not in Slicer's DICOM database any more. Import and load them again.")
    return None


def dicom_files(volume: Any) -> list[str]:
    """The files that a volume was loaded from.

    Raises:
        ValueError: there are none, or not all of them any more; the message says which.
    """
    if problem := dicom_problem(volume):
        raise ValueError(problem)
    uids = _instance_uids(volume)
    files = _files(uids)
    if len(files) < len(uids):
        raise ValueError(
            _("{n} of {all} DICOM files of the scan are not in Slicer's DICOM database any more.").format(
                n=len(uids) - len(files), all=len(uids)
            )
        )
    return files


def origin(volume: Any) -> dict[str, Any] | None:
    """Path and DICOM series of a volume as an index would name them, or None where Slicer does not know."""
    if files := _files(_instance_uids(volume)[:1]):
        return {"path": str(Path(files[0]).parent), "series": slicer.dicomDatabase.seriesForFile(files[0])}
    storage = volume.GetStorageNode()
    name = storage.GetFileName() if storage is not None else None
    return {"path": name} if name else None


def _instance_uids(volume: Any) -> list[str]:
    return (volume.GetAttribute(DICOM_ATTRIBUTE) or "").split() if volume is not None else []


def _files(uids: list[str]) -> list[str]:
    database = getattr(slicer, "dicomDatabase", None)
    if database is None:
        return []
    return [file for uid in uids if (file := database.fileForInstance(uid))]
