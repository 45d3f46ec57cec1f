"""Published numbers of other models, each with its source and protocol (`data/reference_rows.json`)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from brgsa_training.evaluate.metrics import all_negative, all_positive
from brgsa_training.evaluate.report import ReportTable

COLUMNS = ("method", "metric", "value", "labels", "n", "protocol", "source")


@cache
def reference_rows() -> list[dict[str, Any]]:
    """Return all rows; metrics are fractions, `mark` is R (read in the repository) or A (read in the abstract)."""
    path = Path(__file__).parent / "data" / "reference_rows.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def reference_table(benchmark: str, labels: np.ndarray | None = None) -> ReportTable | None:
    """Return the published numbers for a benchmark, one per method and metric; None where there are none.

    `labels` (n, m) of the run beside which they stand, 1, 0 or NaN: where F1 or accuracy is among the numbers, the
    caption says what a constant answer gets on them.
    """
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
    if labels is not None and any("f1" in row["metric"] or row["metric"] == "accuracy" for row in rows):
        caption += f" {_constant_answers(labels)}"
    return ReportTable("reference", caption, COLUMNS, rows, appendix=True)


def _constant_answers(labels: np.ndarray) -> str:
    positives, n = (labels == 1).sum(axis=0).astype(float), (~np.isnan(labels)).sum(axis=0).astype(float)
    positives, n = positives[n > 0], n[n > 0]
    absent, present = all_negative(positives, n), all_positive(positives, n)
    return (
        f"On the labels evaluated here, calling everything absent gets weighted F1 {absent.weighted_f1.mean():.3f} and "
        f"accuracy {absent.accuracy.mean():.3f}; calling everything present gets F1 (present) {present.f1.mean():.3f} "
        "(means over abnormalities)."
    )
