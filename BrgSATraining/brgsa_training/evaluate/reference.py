"""Published numbers of other models, each with its source and protocol (`data/reference_rows.json`)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from brgsa_training.evaluate.report import ReportTable

COLUMNS = ("method", "metric", "value", "labels", "n", "protocol", "source")


@cache
def reference_rows() -> list[dict[str, Any]]:
    """Return all rows; metrics are fractions, `mark` is R (read in the repository) or A (read in the abstract)."""
    path = Path(__file__).parent / "data" / "reference_rows.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def reference_table(benchmark: str) -> ReportTable | None:
    """Return the published numbers for a benchmark, one per method and metric; None where there are none."""
    rows = [
        {
            "method": row["method"] + (f" ({row['year']})" if row["year"] else ""),
            "metric": metric,
            "value": value,
            "labels": row["labels"],
            "n": row["n"],
            "protocol": row["protocol"],
            "source": f"{row['source']} [{row['mark']}]",
        }
        for row in reference_rows()
        if row["benchmark"] == benchmark
        for metric, value in row["metrics"].items()
    ]
    if not rows:
        return None
    caption = "Published numbers. Compare only where labels, set and protocol are the same as above."
    return ReportTable("reference", caption, COLUMNS, rows, appendix=True)
