"""Checks of the input itself: is this a whole chest CT in HU, evenly sampled? Never about what the scan shows.

Every finding has a stable code; docs/input-checks.md lists them with their limits and what to do.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from brgsa.ct.anatomy import Field, sample_field
from brgsa.ct.volume import CTVolume, Source
from brgsa.errors import RefusedScanError

THICK_SLICES_MM = 5.0
LOW_RESOLUTION_MM = 2.0
TILT_DEGREES = 1.0
OBLIQUE_DEGREES = 5.0
# The part of the lungs' outline, seen along X, Y and Z, that may lie on the border of the scan. The lung bases are wide
# and flat, so much of the outline along Z can be cut with little lung lost.
CUT_WARNING, CUT_ERROR = (0.08, 0.08, 0.08), (0.25, 0.25, 0.5)
# Less air-filled lung than this, in litres and as a part of the body, is not a chest. A newborn has 0.1 litres.
SMALLEST_LUNGS, SMALL_LUNGS, SMALL_LUNGS_OF_BODY = 0.05, 0.4, 0.04
# Both signs of a head below the feet (`Field.upside_down`) have to be there. In eight real scans they are -0.69 to
# -0.02 and -0.65 to 0.07, and the reverse where the slices are turned round.
TURNED_WARNING, TURNED_ERROR = (0.1, 0.1), (0.3, 0.3)
_DIRECTIONS = (("right", "left"), ("front", "back"), ("bottom", "top"))


@dataclass(frozen=True)
class Finding:
    """One finding about the input itself: a stable code, and a sentence that says what is wrong and what to do.

    `severity` is "error" where scores would be meaningless (such a scan is refused), "warning" where they may suffer,
    "info" where nothing needs doing.
    """

    code: str
    severity: Literal["info", "warning", "error"]
    message: str


def check_ct(volume: CTVolume, window_mm: tuple[float, float, float] = (384.0, 384.0, 384.0)) -> list[Finding]:
    """Check that a volume is a whole chest CT in HU, evenly sampled.

    `window_mm` is the central box (mm along X, Y, Z) that the model sees: 256 x 256 x 128 voxels of 1.5 x 1.5 x 3 mm.
    Where the modality or the values are wrong, the anatomy is not judged, because it cannot be.
    """
    source = volume.source
    findings = [*_slices(source), *_geometry(volume)]
    if source.modality not in (None, "", "CT"):
        message = f"the modality is {source.modality}, not CT; give a CT series."
        return [Finding("other-modality", "error", message), *findings]
    field = sample_field(volume)
    values = _values(field)
    if values:
        return [*values, *findings]
    return [*_anatomy(field, window_mm), *findings, *_padding(field)]


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """The findings for which a scan is not scored unless it is forced."""
    return [finding for finding in findings if finding.severity == "error"]


def require_fit(path: str | os.PathLike, findings: Iterable[Finding]) -> None:
    """Refuse a scan whose scores would mean nothing.

    Raises:
        RefusedScanError: a finding is an error.
    """
    if errors := errors_of(findings):
        raise RefusedScanError(path, errors)


def _slices(source: Source) -> list[Finding]:
    """Judge the positions of DICOM slices."""
    findings = []
    if source.duplicate_slices:
        message = f"{source.duplicate_slices} slices repeat a position and were left out; check that this is one scan."
        findings.append(Finding("duplicate-slices", "warning", message))
    if source.slice_positions is None or len(source.slice_positions) < 3:
        return findings
    steps = np.diff(source.slice_positions)
    step = float(np.median(steps))
    gaps = np.round(steps / step).astype(int)
    missing = int((gaps - 1)[gaps > 1].sum())
    if missing:
        expected = len(source.slice_positions) + missing
        message = (
            f"about {missing} of {expected} slices are missing "
            f"(largest gap {steps.max():.1f} mm, usual step {step:.1f} mm); "
            "export or download the series again."
        )
        findings.append(Finding("missing-slices", "error" if missing > 0.1 * expected else "warning", message))
    # What is left of a gap after its whole steps is unevenness; so is a step that is too short.
    uneven = np.abs(steps - np.maximum(gaps, 1) * step)
    if uneven.max() > max(0.1 * step, 0.05):
        message = (
            f"the steps between slices range from {steps.min():.2f} to {steps.max():.2f} mm, but the volume is read "
            "as evenly spaced; use a series with even steps."
        )
        findings.append(Finding("uneven-spacing", "warning", message))
    return findings


def _geometry(volume: CTVolume) -> list[Finding]:
    """Judge directions and voxel sizes."""
    findings = []
    directions = volume.affine[:3, :3] / np.array(volume.spacing)
    if not volume.source.orientation_known:
        message = (
            "the file does not say how its axes lie in the patient; check left against right and head against feet."
        )
        findings.append(Finding("orientation-unknown", "warning", message))
    tilt = max(_degrees(np.dot(directions[:, a], directions[:, b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    if tilt > TILT_DEGREES:
        message = f"the slices are sheared by {tilt:.1f} degrees (gantry tilt); resample the scan to upright slices."
        findings.append(Finding("gantry-tilt", "warning", message))
    else:
        turned = float(np.degrees(np.arccos(np.clip(np.diag(directions).min(), -1, 1))))
        if turned > OBLIQUE_DEGREES:
            message = f"the axes are turned by {turned:.1f} degrees against the patient; an upright scan is safer."
            findings.append(Finding("oblique-axes", "warning", message))
    # Spacings computed from an affine are a little off; hundredths of a mm do not matter.
    coarse, coarsest = (round(size, 2) for size in sorted(volume.spacing)[1:])
    thickness = max(coarsest, volume.source.slice_thickness or 0.0)
    if thickness > THICK_SLICES_MM:
        message = f"the slices are {thickness:.1f} mm thick (over 5 mm); use a thinner reconstruction if there is one."
        findings.append(Finding("thick-slices", "warning", message))
    if coarse > LOW_RESOLUTION_MM:
        message = f"the voxels are {coarse:.1f} mm wide (over 2 mm); use the full-resolution scan if there is one."
        findings.append(Finding("low-resolution", "warning", message))
    return findings


def _degrees(cosine: float) -> float:
    """How far two axes are from a right angle."""
    return float(np.degrees(np.arcsin(np.clip(abs(cosine), 0, 1))))


def _values(field: Field) -> list[Finding]:
    """Judge whether the values are HU; at most one finding."""
    values, lowest, highest = field.values, float(field.all_values.min()), float(field.all_values.max())
    low, high = field.range
    if high - low < 50:
        why = f"lie between {lowest:g} and {highest:g}: already normalised, or a label map"
    elif -600 < lowest < -20 and np.mean(field.all_values == lowest) > 0.05:
        why = f"are cut off below {lowest:g}: a display window was applied"
    elif low >= -50 and high <= 256:
        why = f"lie between {low:g} and {high:g}: grey levels of a picture"
    elif low >= -50 and high > 33000:
        why = f"reach {high:g}: negative values were stored as unsigned numbers"
    elif low >= -50:
        why = f"start at {low:g}, without air: the offset (usually -1024) was not applied"
    elif np.mean(values < -1500) > 0.02:
        why = f"start at {low:g}: the offset (usually -1024) was applied twice"
    elif np.mean((values > -200) & (values < 300)) < 0.01:
        why = f"lie between {low:g} and {high:g} with almost nothing near 0, where soft tissue should be"
    else:
        return []
    return [Finding("values-not-hu", "error", f"the values {why}; export the scan in Hounsfield units (HU).")]


def _anatomy(field: Field, window_mm: tuple[float, float, float]) -> list[Finding]:
    """Judge whether the scan shows whole lungs and has them where the model looks."""
    litres = field.lung_litres
    small = litres < SMALL_LUNGS and litres < SMALL_LUNGS_OF_BODY * (litres + field.body_litres)
    if litres < SMALLEST_LUNGS or small:
        message = f"found {litres:.2f} litres of air-filled lung, too little for a chest; give a CT of the chest."
        return [Finding("not-chest", "error", message)]
    findings = []
    cuts, severity = [], "warning"
    for names, parts, warning, error in zip(_DIRECTIONS, field.cut_parts(), CUT_WARNING, CUT_ERROR, strict=True):
        cuts += [f"{name} {part:.0%}" for name, part in zip(names, parts, strict=True) if part > warning]
        severity = "error" if max(parts) > error else severity
    if cuts:
        where = ", ".join(cuts)
        message = (
            f"the border of the scan cuts the lungs (part of their outline: {where}); use a scan with whole lungs."
        )
        findings.append(Finding("lungs-cut", severity, message))
    outside = field.lung_outside(window_mm)
    if outside > 0.05:
        size = " x ".join(f"{length:g}" for length in window_mm)
        message = (
            f"{outside:.0%} of the lungs lie outside the central {size} mm that the model sees; crop it to the chest."
        )
        findings.append(Finding("lungs-off-centre", "error" if outside > 0.5 else "warning", message))
    signs = field.upside_down()
    if all(sign > limit for sign, limit in zip(signs, TURNED_WARNING, strict=True)):
        surely = all(sign > limit for sign, limit in zip(signs, TURNED_ERROR, strict=True))
        message = (
            "the header puts the head below the feet, as the ribs, shoulders and lungs show; "
            "correct the direction of the slices."
        )
        findings.append(Finding("upside-down", "error" if surely else "warning", message))
    smaller = min(field.lung_sides())
    if smaller < 0.1:
        message = f"one side holds {smaller:.0%} of the air-filled lung; check that the scan shows both lungs."
        findings.append(Finding("one-lung", "info", message))
    return findings


def _padding(field: Field) -> list[Finding]:
    """Report a constant filling outside the field of view."""
    if field.padding_value is None:
        return []
    share = f"{field.padding_part:.0%} of the volume is filled with {field.padding_value:g}"
    if field.padding_value > -900:
        message = f"{share}, which is not air; fill the area outside the field of view with -1024 HU."
        return [Finding("field-of-view-padding", "warning", message)]
    message = f"{share}, outside the field of view; it is taken as air, so nothing needs doing."
    return [Finding("field-of-view-padding", "info", message)]
