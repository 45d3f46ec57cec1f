"""Writing a result as CSV, JSON or HTML. No patient name is in a result; the scan is called what its node is called."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brgsa.files import atomic_open, write_csv, write_json

FORMATS = (".csv", ".json", ".html")
COLUMNS = ("case", "abnormality", "score", "probability", "threshold", "positive")
MEANING = (
    "A score is the cosine between the scan and the words, from -1 to 1. It can be compared between scans for one "
    "abnormality, not between abnormalities. It is no probability and no diagnosis. For research only."
)


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
        rows = ([result["case"], *(_cell(row[key]) for key in ("name", *COLUMNS[2:]))] for row in result["scores"])
        write_csv(path, COLUMNS, rows)
    elif suffix == ".html":
        with atomic_open(path) as file:
            file.write(_page(kept))
    else:
        raise ValueError(f"{path.name}: results are written as {', '.join(FORMATS)}")


def _cell(value: Any) -> Any:
    return "" if value is None else {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def _page(result: Mapping[str, Any]) -> str:
    rows = sorted(result["scores"], key=lambda row: -row["score"])
    low, high = bar_range(result["scores"])
    body = "\n".join(
        f"<tr><td>{_text(row['name'])}</td><td class=n>{row['score']:.3f}</td>"
        f'<td class=b><span style="width:{100 * (row["score"] - low) / (high - low):.1f}%"></span></td>'
        f"<td class=n>{_number(row['probability'])}</td><td class=n>{_number(row['threshold'])}</td>"
        f"<td>{_text(_cell(row['positive']))}</td></tr>"
        for row in rows
    )
    findings = "".join(
        f"<li><b>{_text(each['severity'])}</b>: {_text(each['message'])}</li>" for each in result.get("findings", ())
    )
    provenance = "".join(
        f"<tr><td>{_text(key)}</td><td>{_text(value)}</td></tr>" for key, value in result.get("settings", {}).items()
    )
    notice = f"<p class=notice>{_text(result['notice'])}</p>" if result.get("notice") else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{_text(result["case"])}: abnormality scores</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; color: #222 }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 1.5em }}
th, td {{ text-align: left; padding: .25em .6em; border-bottom: 1px solid #ddd }}
.n {{ text-align: right; font-variant-numeric: tabular-nums }}
.b {{ width: 30% }} .b span {{ display: block; height: .8em; background: #4477aa }}
.notice {{ background: #fff3cd; border: 1px solid #e0c060; padding: .6em 1em }}
</style></head><body>
<h1>{_text(result["case"])}: abnormality scores</h1>
{notice}<p>{MEANING}</p>
<table><thead><tr><th>Abnormality</th><th class=n>Score</th><th></th><th class=n>Probability</th>
<th class=n>Threshold</th><th>Present</th></tr></thead><tbody>
{body}
</tbody></table>
<h2>Input checks</h2><ul>{findings or "<li>nothing to report</li>"}</ul>
<h2>Made with</h2><table><tbody>{provenance}</tbody></table>
</body></html>
"""


def bar_range(scores: Any) -> tuple[float, float]:
    """The interval that bars span: it holds zero, every score and every threshold."""
    values = [row["score"] for row in scores] + [row["threshold"] for row in scores if row["threshold"] is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    return low, high if high > low else low + 1.0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(value: Any) -> str:
    return html.escape(str(value))
