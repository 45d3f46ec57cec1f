"""What `check-report --out` writes: a heat map for each disagreement, the result as JSON, and a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from brgsa.abnormalities import AbnormalityList
from brgsa.errors import FORCED
from brgsa.files import write_json
from brgsa_training.report_check.report_check import CheckedAbnormality, ReportCheck, Verdict

if TYPE_CHECKING:
    from brgsa.scoring import PreparedScan, Scorer

JSON_FILE, PAGE_FILE = "report-check.json", "report-check.html"
UNNAMED_SHOWN = 3  # of the abnormalities that are neither calibrated nor named, those with the highest scores


def to_show(check: ReportCheck) -> list[CheckedAbnormality]:
    """The rows that get a heat map: the disagreements, and without thresholds what is nearest to one.

    Without a threshold nobody can say what the model sees. So all that the report names are shown, and the few others
    with the highest scores.
    """
    open_rows = check.of(Verdict.NOT_CALIBRATED)
    return [
        *check.of(Verdict.REPORT_ONLY),
        *check.of(Verdict.MODEL_ONLY),
        *(row for row in open_rows if row.named),
        *[row for row in open_rows if not row.named][:UNNAMED_SHOWN],
    ]


def write_check(
    folder: Path,
    check: ReportCheck,
    scored: AbnormalityList,
    scorer: "Scorer",
    scan: "PreparedScan",
    on_progress: Callable[[float, str], None],
) -> ReportCheck:
    """Write heat maps, `report-check.json` and `report-check.html` into a folder.

    Args:
        scored: the list of the check with the prompts that were scored.
        scan: the scan of the check.

    Returns:
        The check with the heat maps' names and strongest points.
    """
    from brgsa.heatmap import heatmaps
    from brgsa.report.heatmap_file import heatmap_file_names, save_heatmap
    from brgsa.report.html import map_figures
    from brgsa_training.report_check.page import write_page

    by_name = {row.name: row for row in scored}
    wanted = [by_name[row.name] for row in to_show(check)]
    names = heatmap_file_names([row.name for row in wanted])
    points, figures = {}, {}
    for heat in heatmaps(scorer, scan, wanted, on_progress=on_progress):
        save_heatmap(folder / names[heat.name], heat.volume, scan.volume, FORCED in check.record["flags"])
        points[heat.name] = tuple(round(value, 2) for value in heat.maximum_lps)
        figures[heat.name] = map_figures(scan, heat)  # rendered at once, because a map is as large as the scan
    rows = (
        replace(row, heatmap=names[row.name], maximum_lps=points[row.name]) if row.name in points else row
        for row in check.rows
    )
    shown = replace(check, rows=tuple(rows))
    write_json(folder / JSON_FILE, shown.to_dict())
    write_page(folder / PAGE_FILE, shown, figures, scan, scorer.weights.plan.to_dict())
    return shown
