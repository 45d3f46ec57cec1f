"""One scored scan as one HTML page that needs nothing else: no script, no request, no patient's name.

The page shows what was scored, what the input checks say, the scores with bars, slices with heat maps, what the
numbers mean and what made them.
"""

import importlib.resources
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

import brgsa
from brgsa.files import atomic_open
from brgsa.heatmap import HeatMap
from brgsa.preprocess import ModelGrid
from brgsa.report.png import data_uri
from brgsa.report.slices import COLOURS, LOWEST_SHOWN, KeySlice, key_slices
from brgsa.scoring import AbnormalityScore, PreparedScan, ScanScores

_KINDS = {"final": "mean of the direct and the bank score", "direct": "direct score", "bank": "bank score"}
_PROMPTS = {
    "single": "the prompts of each abnormality",
    "pair": "the prompts of each abnormality minus their negations",
    "ensemble": "several phrases of each abnormality, averaged",
}
_METHODS = {
    "rollout": "gradient-weighted attention rollout of the direct score",
    "similarity": "similarity of each part of the scan with the words",
}
_SEVERITIES = {"error": "Error", "warning": "Warning", "info": "Note"}


def write_html(
    path: str | os.PathLike,
    scores: ScanScores,
    scan: PreparedScan,
    maps: Sequence[HeatMap],
    plan: dict[str, Any],
    made: datetime | None = None,
) -> None:
    """Write the page.

    Args:
        scores: of the scan.
        scan: the same scan, for its slices.
        maps: heat maps to show, three slices each, in this order.
        plan: the preprocessing, for the provenance.
        made: time on the page, now by default.

    Raises:
        BrgSAError: the file cannot be written.
    """
    with atomic_open(path) as file:
        file.write(html_page(scores, scan, maps, plan, made or datetime.now(timezone.utc)))


def html_page(
    scores: ScanScores, scan: PreparedScan, maps: Sequence[HeatMap], plan: dict[str, Any], made: datetime
) -> str:
    """The page as text; everything that comes from outside is escaped."""
    body = (
        checks_section(scores),
        _scores(scores),
        _slices(scan, maps),
        meaning_section(scores, maps[0].method if maps else None, scan.grid),
        provenance_section(scores, plan),
    )
    kind = "Chest CT scored against words"
    return document(kind, scores, introduction(scores, scan, made), body, first="scores", layers=bool(maps))


def document(
    kind: str, scores: ScanScores, intro: str, body: Sequence[str], *, first: str, layers: bool, style: str = ""
) -> str:
    """A whole page around sections that are HTML already.

    Args:
        kind: what the page is, text.
        scores: of the scan, for its name and notice.
        intro: what stands under the name, HTML.
        body: the sections.
        first: id of the heading that a keyboard user may skip to.
        layers: offer to take the coloured layers off.
        style: more rules, CSS.
    """
    sheet = importlib.resources.files("brgsa").joinpath("data/report-style.html").read_text(encoding="utf-8")
    case = escape(scores.case)
    toggle = (
        '<input type="checkbox" id="layers" checked><label for="layers">Show the heat maps over the slices</label>'
        if layers
        else ""
    )
    sections = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>BrgSA: {case}</title>
<link rel="icon" href="data:,">
{sheet}{f"<style>{style}</style>" if style else ""}</head>
<body>
<a class="skip" href="#{first}">Skip to the {first}</a>
<header>
<p class="kind">{escape(kind)} · for research use only</p>
<h1>{case}</h1>
{intro}
{_notice(scores)}
</header>
{toggle}
<main>
{sections}
</main>
</body>
</html>
"""


def introduction(scores: ScanScores, scan: PreparedScan, made: datetime) -> str:
    """One line about the scan and what scored it, HTML."""
    return f"""<p>{_size(scan)}. Weights <b>{escape(str(scores.settings["weights"]))}</b>, list
<b>{escape(str(scores.settings["abnormalities"]))}</b>, precision {escape(str(scores.settings["precision"]))},
made {made:%Y-%m-%d %H:%M} UTC.</p>"""


def _size(scan: PreparedScan) -> str:
    shape, spacing = scan.volume.voxels.shape, scan.volume.spacing
    return " × ".join(map(str, shape)) + " voxels of " + " × ".join(f"{size:.3g}" for size in spacing) + " mm"


def _notice(scores: ScanScores) -> str:
    said = [text for text in (scores.forced, scores.notice) if text]
    return "".join(f'<p class="notice" role="note">{escape(text)}</p>' for text in said)


def checks_section(scores: ScanScores) -> str:
    """What the input checks say, HTML."""
    items = [
        f'<li class="{escape(finding.severity)}"><b>{_SEVERITIES.get(finding.severity, "Note")}</b> '
        f"{escape(finding.message)} <code>{escape(finding.code)}</code></li>"
        for finding in scores.findings
    ]
    items += [f"<li><b>Note</b> {escape(message)}</li>" for message in _without_path(scores)]
    body = f"<ul>{''.join(items)}</ul>" if items else "<p>Nothing to report: a whole chest in HU, evenly sampled.</p>"
    return f'<section aria-labelledby="checks-title"><h2 id="checks-title">Input checks</h2>{body}</section>'


def _without_path(scores: ScanScores) -> list[str]:
    """The messages without the scan's folder, whose name may be a patient's."""
    return [message.replace(scores.path, scores.case) for message in scores.messages]


def _scores(scores: ScanScores) -> str:
    rows = sorted(scores.scores, key=lambda row: -row.score)
    calibrated = any(row.probability is not None for row in rows)
    thresholds = any(row.threshold is not None for row in rows)
    values = [value for row in rows for value in (row.score, row.threshold) if value is not None]
    low, high = min(values), max(values)
    columns = ["Abnormality", "Score", "Relative to the others"]
    columns += ["Probability"] if calibrated else []
    columns += ["Threshold", "Above"] if thresholds else []
    numbers = ("Score", "Probability", "Threshold")
    head = "".join(f'<th scope="col"{" class=number" if name in numbers else ""}>{name}</th>' for name in columns)
    body = "\n".join(_row(row, low, high, calibrated, thresholds) for row in rows)
    return f"""<section aria-labelledby="scores"><h2 id="scores" tabindex="-1">Scores</h2>
<table>
<caption>Highest first. Scores compare scans within one abnormality, not abnormalities with each other.</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></section>"""


def _row(row: AbnormalityScore, low: float, high: float, calibrated: bool, thresholds: bool) -> str:
    def place(value: float) -> float:
        return 100 * (value - low) / (high - low) if high > low else 100.0

    mark = "" if row.threshold is None else f'<i style="left:{place(row.threshold):.1f}%"></i>'
    bar = f'<span class="bar"><b style="width:{max(place(row.score), 1):.1f}%"></b>{mark}</span>'
    cells = f'<th scope="row">{escape(row.name)}</th><td class="number">{row.score:+.4f}</td>'
    cells += f'<td aria-hidden="true">{bar}</td>'
    if calibrated:
        cells += f'<td class="number">{"" if row.probability is None else f"{row.probability:.1%}"}</td>'
    if thresholds:
        threshold = "" if row.threshold is None else f"{row.threshold:+.4f}"
        cells += f'<td class="number">{threshold}</td><td>{_yes_no(row.positive)}</td>'
    return f"<tr{' class=positive' if row.positive else ''}>{cells}</tr>"


def _yes_no(positive: bool | None) -> str:
    return "" if positive is None else "yes" if positive else "no"


def _slices(scan: PreparedScan, maps: Sequence[HeatMap]) -> str:
    if not maps:
        return ""
    parts = [f'<div class="map"><h3>{escape(heat.name)}</h3>{map_figures(scan, heat)}</div>' for heat in maps]
    return f"""<section aria-labelledby="slices"><h2 id="slices">Where the model looked</h2>
{maps_legend()}
{"".join(parts)}
</section>"""


def maps_legend() -> str:
    """What the slices and their colours mean, HTML."""
    gradient = ", ".join(f"rgb{colour}" for colour in COLOURS)
    return f"""<p>Slices through the strongest point (ring) of each map. <b>Model attention, not a segmentation:</b> it
says what moved the score, not where a lesion ends, and what is absent has a map, too.</p>
<p class="legend"><span>{LOWEST_SHOWN:.0%}</span>
<span class="scale" style="background:linear-gradient(to right, {gradient})"></span>
<span>100% of the strongest value of each map</span></p>"""


def map_figures(scan: PreparedScan, heat: HeatMap) -> str:
    """Three slices through the strongest point of a map, HTML."""
    figures = "".join(_figure(escape(heat.name), cut) for cut in key_slices(scan.volume, heat))
    return f'<div class="figures">{figures}</div>'


def _figure(name: str, cut: KeySlice) -> str:
    text = f"{cut.plane} slice {cut.number} of {cut.count}"
    edges = "".join(
        f'<span class="edge {side}">{letter}</span>'
        for side, letter in zip(("left", "right", "top", "bottom"), cut.edges, strict=True)
    )
    return f"""<figure>
<div class="picture" style="aspect-ratio:{cut.width:.1f}/{cut.height:.1f}">
<img src="{data_uri(cut.grey)}" alt="{text} through the strongest point of the heat map of {name}">
<img class="layer" src="{data_uri(cut.layer)}" alt="">
<span class="mark layer" style="left:{cut.mark[0]:.2%};top:{cut.mark[1]:.2%}"></span>{edges}
</div>
<figcaption>{text[0].upper()}{text[1:]}</figcaption>
</figure>"""


def meaning_section(scores: ScanScores, method: str | None, grid: ModelGrid) -> str:
    """What the numbers mean, HTML; `method` of the heat maps, None where there are none."""
    seen = " × ".join(f"{count * size:g}" for count, size in zip(grid.shape, grid.spacing, strict=True))
    spacing = " × ".join(f"{size:g}" for size in grid.spacing)
    heat = (
        f"<p>Heat maps: {_METHODS[method]}. They belong to the direct score only and are coarse: one value "
        "per patch of the scan, drawn smoothly. Each has its own scale: strong colours do not mean a high score.</p>"
        if method
        else ""
    )
    return f"""<section aria-labelledby="meaning"><h2 id="meaning">What the numbers mean, and their limits</h2>
<p>The model turns the scan and a sentence into points of one space. A score is the cosine between them, from −1 to 1
(here: {_KINDS[scores.settings["score"]]}, with {_PROMPTS[scores.settings["prompts"]]}). It is not a probability; one is
shown only where the weights were calibrated for exactly these words. A high score does not mean that the abnormality is
there, and a low one does not exclude it.</p>
<p>The model sees the middle {seen} mm of the scan in voxels of {spacing} mm. What is smaller or outside is not seen. It
learned from reports, so it repeats what reports mention and how often they do.</p>
{heat}<p><b>For research use only. Not a medical device. Not for diagnosis.</b></p></section>"""


def provenance_section(scores: ScanScores, plan: dict[str, Any]) -> str:
    """Versions and settings, HTML."""
    rows = {"brgsa": brgsa.__version__, **scores.settings}
    rows |= {f"preprocessing: {key}": value for key, value in plan.items()}
    rows |= {f"seconds: {stage}": f"{value:.2f}" for stage, value in scores.seconds.items()}
    body = "".join(
        f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(_text(v))}</td></tr>' for k, v in rows.items()
    )
    return f"""<section aria-labelledby="provenance"><h2 id="provenance">Provenance</h2>
<table class="provenance"><tbody>{body}</tbody></table></section>"""


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
