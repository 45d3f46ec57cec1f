"""A heat map of a DICOM series as a DICOM Parametric Map in the same study, on the very slices of the series.

It belongs to the patient's study, as the standard requires: like the SR it carries the patient's name and number and
the study's identifiers, copied from the series.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import brgsa
from brgsa.ct.dicom_series import SAME_POSITION
from brgsa.ct.volume import CTVolume
from brgsa.errors import InputError, SetupError
from brgsa.files import atomic_path
from brgsa.heatmap import HeatMap
from brgsa.report.dicom_source import description, own_concept, series_headers

if TYPE_CHECKING:
    from pydicom import Dataset

LABEL = "MODEL_ATTENTION"
EXPLANATION = "Model attention, not a segmentation"
FIRST_SERIES_NUMBER = 9100  # the SR's is 9000
_LEVELS = 255


def write_parametric_map(
    path: str | os.PathLike,
    heat: HeatMap,
    scan: CTVolume,
    settings: Mapping[str, Any],
    notice: str | None = None,
    number: int = 0,
    forced: bool = False,
) -> None:
    """Write a heat map as a Parametric Map: bytes, whose real-world values are 0 to 1.

    Args:
        scan: a DICOM series.
        settings: of the scores; its "weights" are named as the model.
        notice: of the weights.
        number: of the map among those of the scan, from 0; each is a series of its own.
        forced: the scan fails the input checks, which the series says.

    Raises:
        InputError: the scan is no DICOM series, or its frames have no positions.
        SetupError: highdicom is missing.
        BrgSAError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom's warnings quote the patient's name
        document = parametric_map(heat, scan, settings, notice, number, forced)
    with atomic_path(path) as temporary:
        document.save_as(temporary)


def parametric_map(
    heat: HeatMap, scan: CTVolume, settings: Mapping[str, Any], notice: str | None, number: int, forced: bool
) -> "Dataset":
    """Make the Parametric Map; its frames are the slices of the series that were read, in their order."""
    try:
        import highdicom
        from highdicom.pm import ParametricMap, RealWorldValueMapping
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise SetupError("A DICOM heat map needs the package highdicom: pip install 'brgsa[dicom-sr]'.") from error

    headers = series_headers(scan.source, "DICOM heat map")
    _complete(headers)
    frames = np.rint(scan.to_stored(heat.volume).T * _LEVELS).astype(np.uint16)  # (slices, rows, columns)
    document = ParametricMap(
        source_images=headers,
        pixel_array=np.ascontiguousarray(frames),
        series_instance_uid=highdicom.UID(),
        series_number=FIRST_SERIES_NUMBER + number,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="BrgSA",
        manufacturer_model_name=str(settings["weights"]),
        software_versions=brgsa.__version__,
        device_serial_number="none",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label=LABEL,
                lut_explanation=EXPLANATION,
                unit=codes.UCUM.NoUnits,
                value_range=(0, _LEVELS),
                slope=1 / _LEVELS,
                intercept=0,
                quantity_definition=own_concept("attention", EXPLANATION),
            )
        ],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=128, window_width=256)],
        plane_positions=[
            highdicom.PlanePositionSequence("PATIENT", image_position=position)
            for position in _positions(headers, scan, len(frames))
        ],
        content_label=LABEL,
        content_description=description(f"{EXPLANATION}: {heat.name}", None),
    )
    document.BodyPartExamined = headers[0].get("BodyPartExamined") or "CHEST"
    document.SeriesDescription = description(f"Attention, no segmentation: {heat.name}", notice, forced)
    return document


def _complete(headers: Sequence["Dataset"]) -> None:
    """A series without a frame of reference gets one, since a map cannot be without."""
    from highdicom import UID

    frame_of_reference = headers[0].get("FrameOfReferenceUID") or UID()
    for header in headers:
        header.FrameOfReferenceUID = frame_of_reference


def _positions(headers: Sequence["Dataset"], scan: CTVolume, count: int) -> np.ndarray:
    """Where the slices that were read lie, (slices, 3) LPS mm, as the headers of the series give it."""
    if len(headers) > 1 or count == 1:
        positions = np.array([header.ImagePositionPatient for header in headers], float)
    else:
        groups = headers[0].get("PerFrameFunctionalGroupsSequence", [])
        if not all("PlanePositionSequence" in group for group in groups) or not groups:
            raise InputError(f"{scan.source.path}: no DICOM heat map, because the frames have no positions.")
        positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
        step = scan.source.stored_affine[:3, 2]
        depths = positions @ step / np.linalg.norm(step)
        order = np.argsort(depths, kind="stable")
        positions = positions[order[np.concatenate([[True], np.diff(depths[order]) > SAME_POSITION])]]  # as it was read
    return positions
