"""What a scan is called: by the name of its file or folder, the same in every table."""

import hashlib
import os
import re
import unicodedata
from pathlib import Path

EXTENSIONS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
_LONGEST_NAME = 80
_NAME_EXTENSIONS = (*EXTENSIONS, ".npz", ".npy", ".h5", ".pt")  # also of what tables name: embeddings, caches
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def case_name(path: str | Path, parts: int = 1) -> str:
    """The name of a case: the last `parts` of a path, without the extension of the file, as a folder name.

    Scans, label tables, score tables and captions that name the same file get the same name. A text may have the
    slashes of any system and, like an entry of a table, spaces around it; an empty one stays empty.
    """
    pieces = absolute(path).parts if isinstance(path, Path) else re.split(r"[\\/]", path.strip().rstrip("\\/"))
    if pieces == [""]:
        return ""
    last = pieces[-1]
    extension = max((end for end in _NAME_EXTENSIONS if last.lower().endswith(end)), key=len, default="")
    last = last[: len(last) - len(extension)]
    return safe_name("_".join([*pieces[1:][-parts:-1], last]))


def safe_name(text: str) -> str:
    """Turn a text into a folder name: letters, digits, dot, dash and underscore, its last 80 characters at most."""
    kept = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip("._")[-_LONGEST_NAME:].lstrip("._")
    return f"{kept}_" if kept.split(".")[0].lower() in _WINDOWS_DEVICES else kept or "case"


def absolute(path: Path) -> Path:
    """The path without "..": links stay, because what they point at may have no name that says its format."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def series_key(series: str | None) -> str | None:
    """What stands for a DICOM series in records, tables and messages: its number, or a digest of its UID.

    A UID leads to the patient in the hospital's archive, so it is not written down. A key stays as it is.
    """
    if series is None or series.isdecimal() or re.fullmatch("uid-[0-9a-f]{16}", series):
        return series
    return f"uid-{hashlib.sha256(series.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
