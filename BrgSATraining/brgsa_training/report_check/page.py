"""A report check as one HTML page that needs nothing else: no script, no request, no patient's name."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from brgsa.files import atomic_open
from brgsa.report.html import (
    checks_section,
    document,
    introduction,
    maps_legend,
    meaning_section,
    provenance_section,
)
from brgsa.scoring import PreparedScan, ScanScores
from brgsa_training.report_check.report_check import WORDS, CheckedAbnormality, ReportCheck, Verdict
from brgsa_training.report_check.table import thresholds_line

_STYLE = """
blockquote { margin: .3rem 0 .5rem; padding: .1rem .8rem; border-left: 4px solid var(--line); }
.map { padding-bottom: .8rem; }
.map + .map { border-top: 1px solid var(--line); }
.map h3 small { font-weight: normal; color: var(--soft); }
.count { color: var(--soft); font-weight: normal; }
.all td:last-child { font-size: .9rem; }
.all th, .all td { vertical-align: top; }
"""
_TABLE_ORDER = (
    Verdict.REPORT_ONLY,
    Verdict.MODEL_ONLY,
    Verdict.NOT_CALIBRATED,
    Verdict.BOTH,
    Verdict.NEITHER,
    Verdict.NOT_READ,
)


def write_page(
    path: str | os.PathLike,
    check: ReportCheck,
    figures: Mapping[str, str],
    scan: PreparedScan,
    plan: dict[str, Any],
    made: datetime | None = None,
) -> None:
    """Write the page.

    Args:
        figures: the slices of each abnormality that has a heat map, HTML of `brgsa.report.html.map_figures`.
        scan: the scan of the check.
        plan: the preprocessing, for the provenance.
        made: time on the page, now by default.

    Raises:
        BrgSAError: the file cannot be written.
    """
    with atomic_open(path) as file:
        file.write(page(check, figures, scan, plan, made or datetime.now(timezone.utc)))


def page(
    check: ReportCheck, figures: Mapping[str, str], scan: PreparedScan, plan: dict[str, Any], made: datetime
) -> str:
    """The page as text; everything that comes from outside is escaped."""
    scores = ScanScores.from_dict(dict(check.record))
    thresholds = thresholds_line(check) or "no thresholds"
    intro = introduction(scores, scan, made)
    intro += f"\n<p>Report read by <b>{escape(check.backend)}</b>; {escape(thresholds)}.</p>"
    body = [
        _not_calibrated(check),
        maps_legend() if figures else "",
        *_disagreements(check, figures),
        *_open_rows(check, figures),
        _all(check),
        checks_section(scores),
        meaning_section(scores, "rollout" if figures else None, scan.grid),
        provenance_section(scores, plan),
    ]
    kind = "A chest CT report beside what the model sees"
    return document(kind, scores, intro, body, first="comparison", layers=bool(figures), style=_STYLE)


def _not_calibrated(check: ReportCheck) -> str:
    count = len(check.of(Verdict.NOT_CALIBRATED))
    if not count:
        return ""
    return (
        f'<p class="notice" role="note"><b>Not calibrated:</b> {count} abnormalities have no threshold, so nobody can '
        "say whether the model sees them. The rank orders scores that have no common scale; it is not a finding.</p>"
    )


def _disagreements(check: ReportCheck, figures: Mapping[str, str]) -> list[str]:
    """What only one of the two names, where there are thresholds."""
    if not any(row.threshold is not None for row in check.rows):
        return []
    only, seen = check.of(Verdict.REPORT_ONLY), check.of(Verdict.MODEL_ONLY)
    return [
        _section("report-only", "Named by the report, not seen by the model", only, figures),
        _section("model-only", "Seen by the model, not named by the report", seen, figures),
    ]


def _open_rows(check: ReportCheck, figures: Mapping[str, str]) -> list[str]:
    """What nobody can judge, because there is no threshold."""
    rows = check.of(Verdict.NOT_CALIBRATED)
    if not rows:
        return []
    named, others = [row for row in rows if row.named], [row for row in rows if not row.named and row.name in figures]
    return [
        _section("open-named", "Not calibrated, named by the report", named, figures),
        _section("open-others", "Not calibrated, not named: the highest ranks", others, figures),
    ]


def _section(key: str, title: str, rows: Sequence[CheckedAbnormality], figures: Mapping[str, str]) -> str:
    parts = "".join(
        f'<div class="map"><h3>{escape(row.name)} <small>{_numbers(row)}</small></h3>{_quotes(row)}'
        f"{figures.get(row.name, '')}</div>"
        for row in rows
    )
    return f"""<section aria-labelledby="{key}"><h2 id="{key}">{title} <span class="count">({len(rows)})</span></h2>
{parts or "<p>None.</p>"}</section>"""


def _numbers(row: CheckedAbnormality) -> str:
    found = [WORDS[row.report], f"score {row.score:+.4f}"]
    found += [f"threshold {row.threshold:+.4f}"] if row.threshold is not None else [f"rank {row.rank}"]
    found += [f"probability {row.probability:.1%}"] if row.probability is not None else []
    return ", ".join(found)


def _quotes(row: CheckedAbnormality) -> str:
    return "".join(f"<blockquote>{escape(sentence)}</blockquote>" for sentence in row.evidence)


def _all(check: ReportCheck) -> str:
    rows = [row for verdict in _TABLE_ORDER for row in check.of(verdict)]
    columns = ("Abnormality", "Verdict", "Report", "Rank", "Score", "Threshold", "Evidence")
    numbers = ("Rank", "Score", "Threshold")
    head = "".join(f'<th scope="col"{" class=number" if name in numbers else ""}>{name}</th>' for name in columns)
    body = "\n".join(_table_row(row) for row in rows)
    unknown = ", ".join(dict.fromkeys(row.raw_name for row in check.unknown))
    lacking = f"<p>Named by the report, but not in the vocabulary, so not compared: {escape(unknown)}</p>"
    return f"""<section aria-labelledby="comparison"><h2 id="comparison" tabindex="-1">The whole comparison</h2>
<table class="all">
<caption>{len(rows)} abnormalities, disagreements first.</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>{lacking if unknown else ""}</section>"""


def _table_row(row: CheckedAbnormality) -> str:
    disagrees = row.verdict in (Verdict.REPORT_ONLY, Verdict.MODEL_ONLY)
    threshold = "" if row.threshold is None else f"{row.threshold:+.4f}"
    return (
        f'<tr{" class=positive" if disagrees else ""}><th scope="row">{escape(row.name)}</th>'
        f"<td>{row.verdict.value}</td><td>{WORDS[row.report]}</td>"
        f'<td class="number">{row.rank}</td><td class="number">{row.score:+.4f}</td>'
        f'<td class="number">{threshold}</td><td>{"<br>".join(map(escape, row.evidence))}</td></tr>'
    )
