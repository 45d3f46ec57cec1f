"""One folder per run: `table.csv`, `table.md`, `table.tex`, `report.html` and `run.json`.

The CSV has every column; the others join a value with its interval and leave out columns without any value. The page
needs no other file and no script.
"""

import base64
import html
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import brgsa
from brgsa.files import atomic_open, write_csv, write_json

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "…": r"\ldots{}"}
_BASELINES = {
    "f1_all_positive": "f1",
    "weighted_f1_all_negative": "weighted_f1",
    "accuracy_all_negative": "accuracy",
    "brier_prevalence": "brier",
}
_PROSE = ("abnormality", "method", "protocol", "source", "duplicates", "definition")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.note { border-left: 4px solid #b45309; background: #fff7ed; padding: .6rem .9rem; }
ul.note { list-style: none; font-size: .86rem; }
.scroll { overflow-x: auto; margin-top: 1.2rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; vertical-align: top; }
th { border-bottom: 2px solid #57606a; vertical-align: bottom; } td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; min-width: 11rem; } small { color: #57606a; }
tr.mean td { font-weight: 600; border-top: 2px solid #57606a; }
img { max-width: 100%; height: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; } caption { text-align: left; padding-bottom: .4rem; color: #57606a; }
"""


@dataclass(frozen=True)
class ReportTable:
    """A table of a report: columns by their names in `data/columns.json`, rows by column; NaN and None are blank.

    The page shows an `appendix` after the pictures.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    mean_row: bool = False
    appendix: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture of a report as SVG."""

    title: str
    svg: bytes
    alt: str


def write_outputs(
    out: Path,
    title: str,
    note: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[ReportTable],
    pictures: Sequence[Picture],
    run: Mapping[str, Any],
) -> None:
    """Write all files of a run into `out`; the first table is the main one, each other one gets a CSV of its own.

    Args:
        title: of the page.
        note: the protocol in one or two sentences, shown above everything else.
        facts: what was evaluated, as names with values.
        run: what `run.json` says besides versions.
    """
    for table in tables:
        columns = _flat(table)
        write_csv(out / f"{table.name}.csv", columns, [[_plain(row.get(c)) for c in columns] for row in table.rows])
    main = tables[0]
    with atomic_open(out / f"{main.name}.md") as file:
        file.write(f"# {title}\n\n{note}\n\n" + "\n".join(_markdown(table) for table in tables))
    with atomic_open(out / f"{main.name}.tex") as file:
        file.write(_latex(main, note))
    with atomic_open(out / "report.html") as file:
        file.write(_page(title, note, facts, tables, pictures))
    versions = {name: _version(name) for name in ("numpy", "scipy", "scikit-learn", "matplotlib")}
    content = {"brgsa": brgsa.__version__, "versions": {"python": platform.python_version(), **versions}, **run}
    write_json(out / "run.json", _json(content))


def print_table(table: ReportTable) -> None:
    """Print a table for a terminal, its caption and its warnings below it."""
    columns = [column for column in _shown(table) if column != "warnings"]
    lines = [[column_title(column) for column in columns]]
    lines += [[_cell(row, column) for column in columns] for row in table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for number, line in enumerate(lines):
        cells = [
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(table.caption)
    for row in table.rows:
        if row.get("warnings"):
            print(f"! {row[columns[0]]}: {row['warnings']}")


def column_title(column: str) -> str:
    """Return the heading of a column."""
    return _titles()[column][0]


def column_meaning(column: str) -> str:
    """Return what a column means, in a sentence."""
    return _titles()[column][1]


def _flat(table: ReportTable) -> list[str]:
    """Columns of the CSV: a value, then the ends of its interval and its mean and standard deviation."""
    keys = {key for row in table.rows for key in row}
    parts = ("", "_mean", "_std", "_lower", "_upper")
    names = [f"{column}{part}" for column in table.columns for part in parts if f"{column}{part}" in keys]
    return names + [name for name in ("lower", "upper") if name in keys and name not in names]


def _shown(table: ReportTable) -> list[str]:
    """Columns with a value or an interval in some row; a baseline only beside what it is the baseline of."""
    filled = [c for c in table.columns if any(_cell(row, c) for row in table.rows)]
    return [c for c in filled if _BASELINES.get(c, c) in filled]


def _value(row: Mapping[str, Any], column: str) -> Any:
    """The number shown for a column: the bootstrap mean where the protocol reports that, else the value."""
    return row[f"{column}_mean"] if not _blank(row.get(f"{column}_mean")) else row.get(column)


def _cell(row: Mapping[str, Any], column: str) -> str:
    # The interval of a difference is the row's own.
    name = "" if column == "difference" else f"{column}_"
    ends = [row.get(f"{name}lower"), row.get(f"{name}upper")]
    value = _value(row, column)
    if _blank(value):
        return "" if _blank(ends[0]) else f"{_number(ends[0])} to {_number(ends[1])}"
    text = _number(value)
    return text if _blank(ends[0]) or _blank(ends[1]) else f"{text} ({_number(ends[0])} to {_number(ends[1])})"


def _number(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or (float(value).is_integer() and not isinstance(value, float)):
        return str(int(value))
    if value == 0 or abs(value) >= 0.0005:
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) >= 0.00005 else f"{value:.1e}"


def _blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    return "" if _blank(value) else float(value) if hasattr(value, "dtype") else value


def _markdown(table: ReportTable) -> str:
    columns = _shown(table)
    rows = [[_cell(row, c).replace("|", "\\|") for c in columns] for row in table.rows]
    lines = [f"{table.caption}\n", "| " + " | ".join(column_title(c) for c in columns) + " |"]
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(columns) - 1)) + "|")
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _latex(table: ReportTable, note: str) -> str:
    columns = [c for c in _shown(table) if c != "warnings"]
    head = " & ".join(_tex(column_title(c)) for c in columns)
    body = [" & ".join(_tex(_cell(row, c)) for c in columns) + r" \\" for row in table.rows]
    if table.mean_row:
        body.insert(-1, r"\midrule")
    return "\n".join(
        [
            f"% {note}",
            "% needs \\usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _page(
    title: str,
    note: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[ReportTable],
    pictures: Sequence[Picture],
) -> str:
    e = html.escape
    used = list(dict.fromkeys(column for table in tables for column in _shown(table) if column != "warnings"))
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{e(title)}</title>',
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{e(title)}</h1>",
        f'<p class="note">{e(note)}</p>',
        "<dl>" + "".join(f"<dt>{e(name)}</dt><dd>{e(value)}</dd>" for name, value in facts) + "</dl>",
        *[_html_table(table) for table in tables if not table.appendix],
    ]
    for picture in pictures:
        data = base64.b64encode(picture.svg).decode()
        parts.append(f"<h2>{e(picture.title)}</h2>")
        parts.append(f'<img alt="{e(picture.alt)}" src="data:image/svg+xml;base64,{data}">')
    parts += [_html_table(table) for table in tables if table.appendix]
    meanings = "".join(f"<dt>{e(column_title(c))}</dt><dd>{e(column_meaning(c))}</dd>" for c in used)
    parts.append(f"<h2>What the columns mean</h2><dl>{meanings}</dl>")
    parts.append(
        f"<p>Made with brgsa {e(brgsa.__version__)}; run.json says with what. For research, not for diagnosis.</p>"
    )
    return "\n".join(parts) + "\n</body>\n</html>\n"


def _html_table(table: ReportTable) -> str:
    e = html.escape
    columns = [column for column in _shown(table) if column != "warnings"]
    head = "".join(f'<th title="{e(column_meaning(c))}">{e(column_title(c))}</th>' for c in columns)
    rows = []
    for number, row in enumerate(table.rows):
        mean = ' class="mean"' if table.mean_row and number == len(table.rows) - 1 else ""
        cells = []
        for column in columns:
            text = ' class="text"' if column in _PROSE else ""
            # An interval goes below its value, so that more columns fit the page.
            value, bracket, ends = (
                e(_cell(row, column)).partition(" (") if not text else (e(_cell(row, column)), "", "")
            )
            cells.append(f"<td{text}>{value}<br><small>({ends}</small></td>" if bracket else f"<td{text}>{value}</td>")
        rows.append(f"<tr{mean}>{''.join(cells)}</tr>")
    warnings = [
        f"<li><b>{e(str(row[columns[0]]))}</b>: {e(row['warnings'])}</li>" for row in table.rows if row.get("warnings")
    ]
    return (
        f'<div class="scroll"><table><caption>{e(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<ul class="note">{"".join(warnings)}</ul>' if warnings else "")
    )


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if hasattr(value, "tolist"):
        return _json(value.tolist())
    return None if _blank(value) and value != "" else value


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


@cache
def _titles() -> dict[str, list[str]]:
    path = Path(__file__).parent / "data" / "columns.json"
    return json.loads(path.read_text(encoding="utf-8"))
