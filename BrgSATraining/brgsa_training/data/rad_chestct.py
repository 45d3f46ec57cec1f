"""Scans of RAD-ChestCT: NumPy archives on a 0.8 mm grid. Reference: docs/method.md c.2."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brgsa.ct.cases import safe_name
from brgsa.ct.volume import CTVolume, Source
from brgsa.errors import InputError, first_line
from brgsa_training.data.scan import Scan

SPACING_MM = (0.8, 0.8, 0.8)


@dataclass(frozen=True)
class RadChestCTScan(Scan):
    """One archive with the array `ct`: HU as (slices, rows, columns)."""

    def read(self, fidelity: str) -> tuple[CTVolume, str]:
        """Return the scan with its slices in reverse order, as the released preprocessing has it.

        Raises:
            InputError: the file is missing or damaged, or has no such array.
        """
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                slices = archive["ct"]
        except KeyError as error:
            raise InputError(f"{self.path}: has no array named ct. Is it an archive of RAD-ChestCT?") from error
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error}); check the name.") from error
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path}: is cut short or damaged ({first_line(error)}); copy it again.") from error
        if slices.ndim != 3 or slices.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: its array ct is {slices.shape} {slices.dtype}, expected a volume in HU.")
        voxels = slices[::-1].astype(np.float32).transpose(2, 1, 0)
        affine = np.diag([*SPACING_MM, 1.0])
        source = Source(self.path, "npz", voxels.shape, affine, slices.dtype.name, orientation_known=False)
        return CTVolume(voxels, SPACING_MM, affine, source), "slices reversed, voxels of 0.8 mm"


def list_rad_chestct(root: str | os.PathLike) -> list[RadChestCTScan]:
    """List the archives of a folder; each is a study and a patient of its own.

    Raises:
        InputError: the folder holds none.
    """
    paths = sorted(Path(root).glob("*.npz"))
    if not paths:
        raise InputError(f"{root}: holds no .npz file. Give the folder with the scans of RAD-ChestCT.")
    names = [safe_name(path.stem) for path in paths]
    return [RadChestCTScan(name, name, name, path) for name, path in zip(names, paths, strict=True)]
