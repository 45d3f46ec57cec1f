"""What DICOM objects derived from a series need of it: headers, and codes of a scheme of our own."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brgsa.ct.dicom_series import choose_series
from brgsa.ct.source import Source
from brgsa.errors import InputError, first_line
from brgsa.scoring import Progress, silent

if TYPE_CHECKING:
    from pydicom import Dataset

SCHEME = "99BRGSA"  # a coding scheme of one's own begins with 99
LONGEST_MEANING = LONGEST_DESCRIPTION = 64
# What the patient and study modules must at least have, though empty.
_REQUIRED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def series_headers(source: Source, what: str) -> list["Dataset"]:
    """The series that a scan was read from without its pixels, in the order of its slices.

    Args:
        what: the object that needs them, for the message.

    Raises:
        InputError: the scan is no DICOM series.
    """
    if source.format != "dicom":
        raise InputError(f"{source.path}: a {what} needs a DICOM series, and this is {source.format}.")
    series, _ = choose_series(source.path, source.series_uid)
    return file_headers([image.path for image in series.images])


def file_headers(paths: Sequence[str | os.PathLike], on_progress: Progress = silent) -> list["Dataset"]:
    """These files of one series without their pixels.

    Raises:
        InputError: none, a missing or damaged file, or one of another series.
    """
    import pydicom

    headers: list[Dataset] = []
    for number, path in enumerate(paths):
        on_progress(number / len(paths), "reading the DICOM series")
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            uid = header.SeriesInstanceUID
        except (OSError, AttributeError, pydicom.errors.InvalidDicomError) as error:
            raise InputError(f"{path}: the DICOM file is missing or damaged ({first_line(error)}).") from error
        if headers and uid != headers[0].SeriesInstanceUID:
            raise InputError(f"{path}: belongs to another series than {paths[0]}. Load one series as one volume.")
        for keyword in _REQUIRED:
            if keyword not in header:
                setattr(header, keyword, "")
        headers.append(header)
    if not headers:
        raise InputError("a DICOM SR needs the files of the DICOM series, and none were given.")
    return headers


def own_concept(value: str, meaning: str) -> Any:
    """A coded concept of our own scheme."""
    return concept({"id": value, "label": meaning}, SCHEME)


def concept(code: Mapping[str, str], scheme: str) -> Any:
    """A coded concept of a code as the abnormality lists hold it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code["id"], scheme, code.get("label", code["id"])[:LONGEST_MEANING])


def description(text: str, notice: str | None, forced: bool = False) -> str:
    """A description that fits, with the kind of weights where they are not for patients, and of a forced scan."""
    weights = f"; {notice.split(':')[0]} weights" if notice else ""
    return f"{'Forced: ' if forced else ''}{text}{weights}"[:LONGEST_DESCRIPTION]
