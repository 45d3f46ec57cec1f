"""The scores of one DICOM series as a DICOM Structured Report (TID 1500, Measurement Report).

The report belongs to the patient's study, as the standard requires: it carries the patient's name and number and the
study's identifiers, copied from the series. So does a heat map in DICOM; every other output is free of them.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import brgsa
from brgsa.abnormalities import Abnormality
from brgsa.ct.source import Source
from brgsa.errors import InputError, SetupError
from brgsa.files import atomic_path
from brgsa.report.dicom_source import (
    LONGEST_MEANING,
    concept,
    description,
    file_headers,
    own_concept,
    series_headers,
)
from brgsa.scoring import AbnormalityScore, Progress, ScanScores, silent

if TYPE_CHECKING:
    from pydicom import Dataset

TITLE = "BrgSA abnormality scores, research use only"


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
        headers = (
            series_headers(images, "DICOM SR") if isinstance(images, Source) else file_headers(images, on_progress)
        )
        try:
            document = structured_report(scores, abnormalities, headers)
        except AttributeError as error:
            if not any(error.obj is header for header in headers):
                raise
            where = getattr(error.obj, "filename", "the DICOM series")
            raise InputError(f"{where}: has no {error.name}, which a DICOM SR needs. Export it once more.") from error
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
        + ([f"notice={scores.notice}"] if scores.notice else [])
        + ([f"flags={' '.join(scores.flags)}"] if scores.forced else []),
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
        procedure_reported=concept({"id": "169069000", "label": "CT of chest"}, "SCT"),
        imaging_measurements=groups,
        title=own_concept("scores", TITLE),
        referenced_images=images,
    )
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
    document.SeriesDescription = description(TITLE, scores.notice, bool(scores.forced))
    document.SoftwareVersions = brgsa.__version__
    return document


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
        evaluations.append(sr.QualitativeEvaluation(own_concept("above", "Score above threshold"), answer))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier=row.name[:LONGEST_MEANING]),
        finding_type=_finding(abnormality),
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(name=own_concept(*name), value=round(float(value), 6), unit=codes.UCUM.NoUnits)
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
            return concept(code, scheme)
    digest = hashlib.sha256(abnormality.name.casefold().encode()).hexdigest()[:12]
    return own_concept(digest, abnormality.name)
