"""The scores of one DICOM series as a DICOM Structured Report (TID 1500, Measurement Report).

The report belongs to the patient's study, as the standard requires: it carries the patient's name and number and the
study's identifiers, copied from the series. Every other output of this program is free of them.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import brgsa
from brgsa.abnormalities import Abnormality
from brgsa.dicom_series import choose_series
from brgsa.errors import InputError, SetupError, first_line
from brgsa.files import atomic_path
from brgsa.scoring import AbnormalityScore, Progress, ScanScores, silent
from brgsa.stored import Source

if TYPE_CHECKING:
    from pydicom import Dataset

TITLE = "BrgSA abnormality scores, research use only"
SCHEME = "99BRGSA"  # a coding scheme of one's own begins with 99
_LONGEST_MEANING = 64
_LONGEST_DESCRIPTION = 64
# What the patient and study modules must at least have, though empty.
_REQUIRED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


def write_sr(
    path: str | os.PathLike,
    scores: ScanScores,
    abnormalities: Sequence[Abnormality],
    images: Source | Sequence[str | os.PathLike],
    on_progress: Progress = silent,
) -> None:
    """Write the report.

    Args:
        abnormalities: the list that was scored, for the codes.
        images: source of the scan, a DICOM series; or the files of that series, where the scan was read from a copy.
        on_progress: what it raises ends the work.

    Raises:
        InputError: the scan is no DICOM series, or the files are not the images of one.
        SetupError: highdicom is missing.
        BrgSAError: the file cannot be written.
    """
    try:
        import highdicom  # noqa: F401 (before the series is read)
    except ImportError as error:
        raise SetupError("DICOM SR needs the package highdicom. Install it: pip install highdicom") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's warnings quote the patient's name
        headers = _series(images) if isinstance(images, Source) else _headers(images, on_progress)
        document = structured_report(scores, abnormalities, headers)
    with atomic_path(path) as temporary:
        document.save_as(temporary)


def structured_report(scores: ScanScores, abnormalities: Sequence[Abnormality], images: list["Dataset"]) -> "Dataset":
    """Make the report: a measurement group per abnormality, and references to every image of the series."""
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes

    algorithm = sr.AlgorithmIdentification(
        name="BrgSA",
        version=brgsa.__version__,
        parameters=[f"{key}={value}" for key, value in scores.settings.items()]
        + ([f"notice={scores.notice}"] if scores.notice else []),
    )
    by_name = {abnormality.name: abnormality for abnormality in abnormalities}
    groups = [_group(row, by_name[row.name], algorithm) for row in scores.scores]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=highdicom.UID(), name="BrgSA", manufacturer_name="BrgSA", model_name=scores.settings["weights"]
                ),
            )
        ),
        procedure_reported=_concept({"id": "169069000", "label": "CT of chest"}, "SCT"),
        imaging_measurements=groups,
        title=_own("scores", TITLE),
        referenced_images=images,
    )
    notice = f"; {scores.notice.split(':')[0]} weights" if scores.notice else ""
    document = sr.EnhancedSR(
        evidence=images,
        content=report,
        series_instance_uid=highdicom.UID(),
        series_number=9000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="BrgSA",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    document.SeriesDescription = f"{TITLE}{notice}"[:_LONGEST_DESCRIPTION]
    document.SoftwareVersions = brgsa.__version__
    return document


def _series(source: Source) -> list["Dataset"]:
    """The series that a scan was read from, without its pixels."""
    if source.format != "dicom":
        raise InputError(f"{source.path}: a DICOM SR needs a DICOM series, and this is {source.format}.")
    series, _ = choose_series(source.path, source.series_uid)
    return _headers([image.path for image in series.images], silent)


def _headers(paths: Sequence[str | os.PathLike], on_progress: Progress) -> list["Dataset"]:
    """These files of one series without their pixels."""
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


def _group(row: AbnormalityScore, abnormality: Abnormality, algorithm: Any) -> Any:
    """The measurement group of one abnormality."""
    from highdicom import UID, sr
    from pydicom.sr.codedict import codes

    values = {
        ("score", "Similarity of image and text"): row.score,
        ("probability", "Calibrated probability"): row.probability,
        ("threshold", "Threshold of the score"): row.threshold,
    }
    evaluations = []
    if row.positive is not None:
        answer = codes.SCT.Yes if row.positive else codes.SCT.No
        evaluations.append(sr.QualitativeEvaluation(_own("above", "Score above threshold"), answer))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier=row.name[:_LONGEST_MEANING]),
        finding_type=_finding(abnormality),
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(name=_own(*name), value=round(float(value), 6), unit=codes.UCUM.NoUnits)
            for name, value in values.items()
            if value is not None
        ],
        qualitative_evaluations=evaluations,
    )


def _finding(abnormality: Abnormality) -> Any:
    """The code of an abnormality: SNOMED CT or RadLex where one means exactly this, else one of our own."""
    for system, scheme in (("snomed", "SCT"), ("radlex", "RADLEX")):
        code = abnormality.codes.get(system)
        if code and code.get("match", "exact") == "exact":
            return _concept(code, scheme)
    digest = hashlib.sha256(abnormality.name.casefold().encode()).hexdigest()[:12]
    return _own(digest, abnormality.name)


def _own(value: str, meaning: str) -> Any:
    return _concept({"id": value, "label": meaning}, SCHEME)


def _concept(code: Mapping[str, str], scheme: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code["id"], scheme, code.get("label", code["id"])[:_LONGEST_MEANING])
