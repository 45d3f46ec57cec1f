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
from brgsa.errors import InputError, SetupError
from brgsa.files import atomic_path
from brgsa.scoring import AbnormalityScore, ScanScores
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


def write_sr(path: str | os.PathLike, scores: ScanScores, abnormalities: Sequence[Abnormality], source: Source) -> None:
    """Write the report.

    Args:
        abnormalities: the list that was scored, for the codes.
        source: of the scan, a DICOM series.

    Raises:
        InputError: the scan is no DICOM series.
        SetupError: highdicom is missing.
        BrgSAError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's warnings quote the patient's name
        document = structured_report(scores, abnormalities, source)
    with atomic_path(path) as temporary:
        document.save_as(temporary)


def structured_report(scores: ScanScores, abnormalities: Sequence[Abnormality], source: Source) -> "Dataset":
    """Make the report: a measurement group per abnormality, and references to every image of the series."""
    if source.format != "dicom":
        raise InputError(f"{source.path}: a DICOM SR needs a DICOM series, and this is {source.format}.")
    try:
        import highdicom
        from highdicom import sr
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise SetupError("DICOM SR needs the package highdicom: pip install 'brgsa[dicom-sr]'.") from error

    images = _headers(source)
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


def _headers(source: Source) -> list["Dataset"]:
    """The series without its pixels."""
    import pydicom

    series, _ = choose_series(source.path, source.series_uid)
    headers = [pydicom.dcmread(image.path, stop_before_pixels=True) for image in series.images]
    for header in headers:
        for keyword in _REQUIRED:
            if keyword not in header:
                setattr(header, keyword, "")
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
