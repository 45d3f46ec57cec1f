"""Scans of CT-RATE: paths, voxel sizes and rescaling come from its metadata table.

The first version of the data set stores raw values that need the slope and intercept of the table; files of the second
version are in HU already, and the same table still lists a slope and an intercept. Rescaling twice is the commonest
mistake made with this data set, so the values of each file decide. Reference: docs/method.md c.1.
"""

import ast
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brgsa.ct.volume import CTVolume, read_ct
from brgsa.errors import InputError
from brgsa.preprocess import rescale_reference
from brgsa_training.data.folder import read_table
from brgsa_training.data.scan import Scan

COLUMNS = ("VolumeName", "XYSpacing", "ZSpacing", "RescaleSlope", "RescaleIntercept")
# HU of air and lung, and of soft tissue; a chest CT has plenty of both.
AIR_HU = (-1100.0, -600.0)
SOFT_TISSUE_HU = (-150.0, 250.0)
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class CTRateScan(Scan):
    """A row of the metadata table. `spacing` is in mm (X, Y, Z)."""

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: float = 1.0
    intercept: float = 0.0

    def read(self, fidelity: str) -> tuple[CTVolume, str]:
        """Return the scan in the index order of its file, in HU, with the voxel size of the table.

        Raises:
            InputError: the file is missing or damaged, or neither its values nor their rescaling look like HU.
        """
        volume = read_ct(self.path)
        notes = list(volume.source.messages)
        voxels = volume.to_stored(volume.voxels)
        if volume.source.orientation_known and volume.source.stored_axes != "LPS":
            notes.append(f"header says axes grow {volume.source.stored_axes}, read as stored like the released code")
        rescale, note = needs_rescaling(voxels, self.slope, self.intercept, self.path)
        if rescale and fidelity == "reference":
            voxels = rescale_reference(voxels, self.slope, self.intercept)
        elif rescale:
            voxels = voxels * np.float32(self.slope) + np.float32(self.intercept)
        notes.append(note)
        affine = np.diag([*self.spacing, 1.0])
        return replace(volume, voxels=voxels, spacing=self.spacing, affine=affine), "; ".join(notes)


def list_ct_rate(metadata: str | os.PathLike, root: str | os.PathLike) -> list[CTRateScan]:
    """List the rows of the metadata table.

    Args:
        metadata: CSV with VolumeName, XYSpacing, ZSpacing, RescaleSlope and RescaleIntercept.
        root: folder with train_1/train_1_a/train_1_a_1.nii.gz, or with the files side by side.

    Raises:
        InputError: the table cannot be read, or a row has no volume name or no voxel size.
    """
    root = Path(root)
    side_by_side = next(root.glob("*.nii.gz"), None) is not None
    scans, seen = [], set()
    for number, row in enumerate(read_table(metadata, COLUMNS), start=2):
        name = row["VolumeName"].removesuffix(".nii.gz")
        study = name.rpartition("_")[0]
        patient = study.rpartition("_")[0]
        if not patient or not name.replace("_", "").isalnum() or name in seen:
            raise InputError(
                f"{metadata}: line {number} has the volume name {row['VolumeName']!r}; "
                "expected one like train_1_a_1.nii.gz, once."
            )
        seen.add(name)
        path = (root if side_by_side else root / patient / study) / f"{name}.nii.gz"
        scans.append(CTRateScan(name, study, patient, path, None, *_numbers(metadata, number, row)))
    return scans


def needs_rescaling(voxels: np.ndarray, slope: float, intercept: float, path: object = "scan") -> tuple[bool, str]:
    """Decide from the values whether slope and intercept have yet to be applied.

    In HU a chest CT has both much air or lung and much soft tissue; under the other reading one of the two is missing.

    Returns:
        Whether to apply them, and the reason in words.

    Raises:
        InputError: neither reading looks like HU.
    """
    if slope == 1 and intercept == 0:
        return False, "the table's rescaling changes nothing"
    sample = voxels[::4, ::4, ::2].astype(np.float32)
    stored, rescaled = _likeness(sample), _likeness(sample * np.float32(slope) + np.float32(intercept))
    if max(stored, rescaled) < LEAST_SHARE:
        raise InputError(
            f"{path}: neither the stored values nor those after slope {slope:g} and intercept {intercept:g} look like "
            "HU of a chest. Check the metadata table and the file."
        )
    if stored >= rescaled:
        return False, f"already in HU, slope {slope:g} and intercept {intercept:g} of the table not applied"
    return True, f"slope {slope:g} and intercept {intercept:g} of the table applied"


def _likeness(hu: np.ndarray) -> float:
    """The smaller of the shares of air and of soft tissue."""
    return min(float(((hu >= low) & (hu <= high)).mean()) for low, high in (AIR_HU, SOFT_TISSUE_HU))


def _numbers(metadata: object, number: int, row: dict[str, str]) -> tuple[tuple[float, float, float], float, float]:
    """Voxel size, slope and intercept of a row; an empty slope or intercept changes nothing."""
    try:
        in_plane = ast.literal_eval(row["XYSpacing"].strip())
        x, y = in_plane if isinstance(in_plane, list | tuple) else (in_plane, in_plane)
        spacing = (float(x), float(y), float(row["ZSpacing"]))
        slope, intercept = float(row["RescaleSlope"] or 1), float(row["RescaleIntercept"] or 0)
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(
            f"{metadata}: line {number} has no numbers in XYSpacing, ZSpacing, RescaleSlope or RescaleIntercept."
        ) from error
    slope, intercept = (1.0 if math.isnan(slope) else slope), (0.0 if math.isnan(intercept) else intercept)
    if not all(math.isfinite(size) and size > 0 for size in spacing) or not math.isfinite(slope * intercept):
        raise InputError(f"{metadata}: line {number} has a voxel size or a rescaling that cannot be true.")
    return spacing, slope, intercept
