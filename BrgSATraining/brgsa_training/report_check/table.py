"""A report check as text for the terminal: disagreements first."""

from collections.abc import Sequence

from brgsa.errors import FORCED
from brgsa.tables import text_table
from brgsa.text import shorten
from brgsa_training.report_check.report_check import WORDS, CheckedAbnormality, ReportCheck, Verdict

EVIDENCE_LENGTH = 90


def check_table(check: ReportCheck) -> str:
    """The result in sections."""
    record = check.record
    doubt = {"negative": "counts as not named", "positive": "counts as named", "ignore": "is left out"}[check.uncertain]
    lines = [f"{record['case']}  ({record['path']})", f"  report read by: {check.backend}; a doubt {doubt}"]
    lines += [f"  {FORCED}: the scan fails the input checks"] * (FORCED in record["flags"])
    lines += [f"  note: {message}" for message in record["messages"]]
    lines += [f"  {finding['severity']}: {finding['message']}" for finding in record["findings"]]
    if not any(row.report for row in check.rows):
        english = " The rules read English only." if check.backend == "rules" else ""
        lines.append(f"  note: the report names none of these abnormalities.{english}")
    if thresholds := thresholds_line(check):
        lines.append(f"  {thresholds}")
        for verdict, title in (
            (Verdict.REPORT_ONLY, "Named by the report, not seen by the model"),
            (Verdict.MODEL_ONLY, "Seen by the model, not named by the report"),
            (Verdict.BOTH, "Named by the report and seen by the model"),
        ):
            lines += _section(title, check.of(verdict))
        neither = ", ".join(row.name for row in check.of(Verdict.NEITHER)) or "none"
        lines += ["", f"Neither named nor seen ({len(check.of(Verdict.NEITHER))}): {neither}"]
    open_rows = check.of(Verdict.NOT_CALIBRATED)
    if open_rows:
        lines += [
            "",
            f"NOT CALIBRATED: {len(open_rows)} abnormalities have no threshold, so nobody can say whether the",
            "model sees them. The rank orders scores that have no common scale; it is not a finding.",
        ]
        lines += _section("Not calibrated, named by the report", [row for row in open_rows if row.named])
        lines += _section("Not calibrated, not named", [row for row in open_rows if not row.named])
    if in_doubt := check.of(Verdict.IN_DOUBT):
        lines += _section("In doubt, not compared", in_doubt)
    if not_scored := check.of(Verdict.NOT_SCORED):
        names = ", ".join(row.name for row in not_scored)
        lines += ["", f"Named by the report, but without a score: {names}. Score the scan with these, too."]
    if not_read := check.of(Verdict.NOT_READ):
        names = ", ".join(row.name for row in not_read)
        lines += ["", f"The report was not searched for: {names} (not in the vocabulary)"]
    if check.unknown:
        names = ", ".join(dict.fromkeys(row.raw_name for row in check.unknown))
        lines += ["", f"Named by the report, but not in the vocabulary, so not compared: {shorten(names, 300)}"]
    return "\n".join([*lines, *(["", record["notice"]] if record["notice"] else [])])


def thresholds_line(check: ReportCheck) -> str:
    """Where the thresholds come from, "" where there are none."""
    words = {
        "calibration": f"fitted on {check.calibration_set or 'the set of the calibration'}",
        "list": "of the list",
        "scores": "as the scores have them",
    }
    sources = [row.threshold_source for row in check.rows]
    found = [f"{sources.count(source)} {text}" for source, text in words.items() if source in sources]
    return f"thresholds: {', '.join(found)}" if found else ""


def _section(title: str, rows: Sequence[CheckedAbnormality]) -> list[str]:
    if not rows:
        return ["", f"{title}: none"]
    thresholds = any(row.threshold is not None for row in rows)
    columns = ["abnormality", "report", "rank", "score"]
    columns += ["threshold", "probability"] if thresholds else []
    cells = []
    for row in rows:
        line = [row.name, WORDS[row.report], row.rank, f"{row.score:+.4f}"]
        if thresholds:
            line += [f"{row.threshold:+.4f}", "" if row.probability is None else f"{row.probability:.1%}"]
        more = f" (and {len(row.evidence) - 1} more)" if len(row.evidence) > 1 else ""
        cells.append([*line, shorten(row.evidence[0], EVIDENCE_LENGTH) + more if row.evidence else ""])
    table = text_table([*columns, "evidence"], cells, right=range(2, len(columns)))
    return ["", f"{title} ({len(rows)})", *(f"  {line}" for line in table.splitlines())]
