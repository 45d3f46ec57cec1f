"""Tables of plain text for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brgsa.scores import ScanScores

BAR_LENGTH = 20


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """Lay out a table with columns as wide as their longest cell.

    Args:
        right: indices of columns that are aligned to the right.
    """
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def scores_table(scores: "ScanScores") -> str:
    """The scores of one scan, highest first, with what has to be known about them."""
    rows = sorted(scores.scores, key=lambda row: -row.score)
    calibrated = any(row.probability is not None for row in rows)
    thresholds = any(row.threshold is not None for row in rows)
    lowest, highest = rows[-1].score, rows[0].score
    columns = ["abnormality", "score", ""]
    columns += ["probability"] if calibrated else []
    columns += ["threshold", "positive"] if thresholds else []
    cells = []
    for row in rows:
        line = [row.name, f"{row.score:+.4f}", bar(row.score, lowest, highest)]
        if calibrated:
            line.append("" if row.probability is None else f"{row.probability:.1%}")
        if thresholds:
            line += ["", ""] if row.threshold is None else [f"{row.threshold:+.4f}", "yes" if row.positive else "no"]
        cells.append(line)
    head = [f"{scores.case}  ({scores.path})"]
    head += [f"  note: {message}" for message in scores.messages]
    head += [f"  {finding.severity}: {finding.message}" for finding in scores.findings]
    if scores.settings["precision"] != "fp32":
        head.append(f"  note: computed in {scores.settings['precision']}, which changes scores in the third decimal")
    return "\n".join([*head, text_table(columns, cells, right=(1, 3, 4)), *([scores.notice] if scores.notice else [])])


def bar(value: float, lowest: float, highest: float) -> str:
    """A bar from one block (the lowest value) to BAR_LENGTH (the highest)."""
    share = (value - lowest) / (highest - lowest) if highest > lowest else 1.0
    return "█" * (1 + round(share * (BAR_LENGTH - 1)))


def cases_table(results: Sequence["ScanScores"], top: int = 3) -> str:
    """One line per case: its highest scores and its flags."""
    rows = [
        [
            result.case,
            ", ".join(f"{row.name} {row.score:+.3f}" for row in sorted(result.scores, key=lambda r: -r.score)[:top]),
            " ".join(result.flags),
        ]
        for result in results
    ]
    return text_table(["case", f"highest {top} scores", "flags"], rows)
