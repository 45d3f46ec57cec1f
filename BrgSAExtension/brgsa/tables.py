"""Tables of plain text for the terminal."""

from collections.abc import Sequence
from typing import Any

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


def bar(value: float, lowest: float, highest: float) -> str:
    """A bar from one block (the lowest value) to BAR_LENGTH (the highest)."""
    share = (value - lowest) / (highest - lowest) if highest > lowest else 1.0
    return "█" * (1 + round(share * (BAR_LENGTH - 1)))
