"""Writing a result as CSV or JSON. No patient name is in a result; the scan is called what its node is called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brgsa.files import write_csv, write_json

FORMATS = (".csv", ".json")
COLUMNS = ("case", "abnormality", "score", "probability", "threshold", "positive", "flags")


def write(path: str | Path, result: Mapping[str, Any]) -> None:
    """Write a result in the format that the suffix names.

    Raises:
        ValueError: another suffix.
        BrgSAError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    # The path is that of a temporary copy.
    kept = {key: value for key, value in result.items() if key != "path"}
    if suffix == ".json":
        write_json(path, kept)
    elif suffix == ".csv":
        flags = " ".join(result.get("flags", ()))  # scenes of earlier versions have none
        rows = (
            [result["case"], *(_cell(row[key]) for key in ("name", *COLUMNS[2:-1])), flags] for row in result["scores"]
        )
        write_csv(path, COLUMNS, rows)
    else:
        raise ValueError(f"{path.name}: results are written as {', '.join(FORMATS)}")


def _cell(value: Any) -> Any:
    return "" if value is None else {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def bar_range(scores: Any) -> tuple[float, float]:
    """The interval that bars span: it holds zero, every score and every threshold."""
    values = [row["score"] for row in scores] + [row["threshold"] for row in scores if row["threshold"] is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    return low, high if high > low else low + 1.0
