"""A scan to preprocess: where it is, whose it is, and how its data set wants it read."""

from dataclasses import dataclass
from pathlib import Path

from brgsa.ct.volume import CTVolume, read_ct


@dataclass(frozen=True)
class Scan:
    """One reconstruction of one study.

    Attributes:
        case: unique name, safe as a file name.
        study: reconstructions of one examination share it and its report.
        patient: studies of one patient share it; training and validation never do.
        path: file or DICOM folder.
        series: UID of a DICOM series, None for the best one.
    """

    case: str
    study: str
    patient: str
    path: Path
    series: str | None = None

    def read(self, fidelity: str) -> tuple[CTVolume, str]:
        """Return the scan in HU, and what was decided while reading it.

        Args:
            fidelity: "exact" or "reference", see `brgsa.preprocess`.

        Raises:
            InputError: the file is missing, damaged, or not a CT.
        """
        volume = read_ct(self.path, self.series)
        return volume, "; ".join(volume.source.messages)
