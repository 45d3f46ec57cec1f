"""Pictures of an evaluation, each as SVG: curves with bands, forest plot, reliability, confusion."""

import io
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from tqdm import tqdm

from brgsa_training.evaluate.bootstrap import cluster_counts
from brgsa_training.evaluate.cohort import Cohort
from brgsa_training.evaluate.metrics import ThresholdedScores, calibration_bins
from brgsa_training.evaluate.report import Picture

BLUE, ORANGE, GREY = "#1f5fa8", "#c2570c", "#8b949e"
GRID = np.linspace(0, 1, 101)
BAND_RESAMPLES = 200
BAND_CASES = 100_000


def curves(cohort: Cohort, seed: int = 0) -> list[Picture]:
    """Return ROC and precision-recall curves of every abnormality, with 95 % bands over patients.

    Bands are pointwise, from 200 resamples; beyond 100,000 cases they are left out.
    """
    names = cohort.abnormalities
    drawn = {"roc": _small_multiples(len(names)), "pr": _small_multiples(len(names))}
    counts = [np.ones((len(cohort.cases), 1))]
    if len(cohort.cases) <= BAND_CASES:
        counts += [chunk for _, chunk in cluster_counts(cohort.clusters, BAND_RESAMPLES, seed)]
    for c, name in enumerate(tqdm(names, desc="curves", delay=2, leave=False)):
        known = np.flatnonzero(~np.isnan(cohort.labels[:, c]))
        labels, scores = cohort.labels[known, c], cohort.scores[known, c]
        positives = int(labels.sum())
        for _, axes in drawn.values():
            _title(axes[c], f"{name} ({positives})")
            axes[c].set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
            _ticks(axes[c])
        if positives in (0, len(labels)):
            for _, axes in drawn.values():
                axes[c].text(0.5, 0.5, "one class only", ha="center", va="center", color=GREY)
            continue
        sampled = [_curve_points(scores, labels, chunk[known]) for chunk in counts]
        for key, level in (("roc", None), ("pr", positives / len(labels))):
            axis = drawn[key][1][c]
            values = np.concatenate([part[key] for part in sampled])
            if len(values) > 1:
                low, high = np.nanpercentile(values[1:], [2.5, 97.5], axis=0)
                axis.fill_between(GRID, low, high, color=BLUE, alpha=0.18, lw=0)
            axis.plot(GRID, values[0], color=BLUE, lw=1.3)
            axis.plot([0, 1], [0, 1] if level is None else [level, level], color=GREY, lw=0.8, ls="--")
    titles = {
        "roc": ("ROC curves", "1 - specificity", "sensitivity"),
        "pr": ("Precision-recall curves", "recall (sensitivity)", "precision"),
    }
    pictures = []
    for key, (figure, _) in drawn.items():
        title, x, y = titles[key]
        figure.supxlabel(x, fontsize=9)
        figure.supylabel(y, fontsize=9)
        alt = f"{title} of {len(names)} abnormalities; number of positives in brackets; dashed: chance; band: 95 %."
        pictures.append(Picture(title, svg(figure), alt))
    return pictures


def forest(names: Sequence[str], values: Sequence[float], lower: Sequence[float], upper: Sequence[float]) -> Picture:
    """Return the forest plot of AUROCs with their intervals; the last row is the mean."""
    shown = [i for i, value in enumerate(values) if not math.isnan(value)]
    figure = _figure(7.2, 0.9 + 0.27 * len(shown))
    axis = figure.add_subplot()
    for place, i in enumerate(shown):
        colour = ORANGE if i == len(values) - 1 else BLUE
        if not math.isnan(lower[i]):
            axis.plot([lower[i], upper[i]], [place, place], color=colour, lw=1.6)
        axis.plot(values[i], place, marker="D" if colour == ORANGE else "o", ms=5, color=colour)
        end = 1.0 if math.isnan(upper[i]) else upper[i]
        axis.annotate(
            f"{values[i]:.3f}", (end, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.axvline(0.5, color=GREY, lw=0.8, ls="--")
    axis.set_yticks(range(len(shown)), [names[i] for i in shown], fontsize=8)
    axis.set(ylim=(len(shown) - 0.4, -0.6), xlabel="AUROC (95 % interval; dashed: chance)")
    axis.tick_params(axis="x", labelsize=8)
    low = min([0.5, *(value for value in lower if not math.isnan(value))])
    axis.set_xlim(math.floor(low * 20) / 20, 1.06)
    return Picture("AUROC with intervals", svg(figure), "Forest plot of AUROC with 95 % intervals.")


def reliability(cohort: Cohort) -> Picture | None:
    """Return probability against observed share for every calibrated abnormality; None without any."""
    columns = []
    for c in range(len(cohort.abnormalities)):
        known = ~np.isnan(cohort.labels[:, c])
        if known.any() and not np.isnan(cohort.probabilities[known, c]).any():
            columns.append((c, known))
    if not columns:
        return None
    figure, axes = _small_multiples(len(columns))
    for axis, (c, known) in zip(axes, columns, strict=True):
        bins = calibration_bins(cohort.probabilities[known, c], cohort.labels[known, c])
        end = min(1.0, max(0.1, 1.15 * bins[:, :2].max()))
        axis.plot([0, end], [0, end], color=GREY, lw=0.8, ls="--")
        axis.plot(bins[:, 0], bins[:, 1], color=BLUE, marker="o", ms=3, lw=1.1)
        axis.set(xlim=(0, end), ylim=(0, end), aspect="equal")
        axis.tick_params(labelsize=7)
        _title(axis, cohort.abnormalities[c])
    figure.supxlabel("probability", fontsize=9)
    figure.supylabel("observed share", fontsize=9)
    alt = "Reliability diagrams: probability against observed share in ten groups of equal size; dashed: perfect."
    return Picture("Reliability", svg(figure), alt)


def confusion(cohort: Cohort, thresholds: np.ndarray) -> Picture | None:
    """Return the four counts at the threshold of every abnormality that has one; None without any."""
    columns = np.flatnonzero(~np.isnan(thresholds))
    if not len(columns):
        return None
    thresholded = ThresholdedScores(cohort.scores[:, columns], cohort.labels[:, columns], thresholds[columns])
    counts = thresholded.confusion(np.ones((len(cohort.cases), 1)))
    figure, axes = _small_multiples(len(columns), height=1.6)
    for i, (axis, c) in enumerate(zip(axes, columns, strict=True)):
        matrix = np.array(
            [[counts.true_positive[i, 0], counts.false_negative[i, 0]],
             [counts.false_positive[i, 0], counts.true_negative[i, 0]]]
        )  # fmt: skip
        with np.errstate(invalid="ignore"):
            share = np.nan_to_num(matrix / matrix.sum(axis=1, keepdims=True))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.55 else "#1b1f24"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks([0, 1], ["called +", "called -"], fontsize=7)
        axis.set_yticks([0, 1], ["+", "-"], fontsize=8)
        axis.tick_params(length=0)
        _title(axis, cohort.abnormalities[c])
    alt = "Confusion at the threshold: rows are the labels, columns the calls; shade is the share of the row."
    return Picture("Confusion at the threshold", svg(figure), alt)


def _curve_points(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return sensitivity and precision on GRID, (resamples, 101) each, for counts (n, resamples)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    positive = labels[order] == 1
    true_positive = np.cumsum(counts[order] * positive[:, None], axis=0)[last]
    false_positive = np.cumsum(counts[order] * ~positive[:, None], axis=0)[last]
    roc, pr = [], []
    for hits, alarms in zip(true_positive.T, false_positive.T, strict=True):
        if hits[-1] == 0 or alarms[-1] == 0:
            continue
        sensitivity, fall_out = hits / hits[-1], alarms / alarms[-1]
        # At equal 1 - specificity the highest sensitivity counts; np.interp wants rising positions.
        roc.append(np.interp(GRID, np.concatenate([[0], fall_out]), np.concatenate([[0], sensitivity])))
        precision = hits / np.maximum(hits + alarms, 1)
        first = np.searchsorted(sensitivity, GRID, side="left")
        # Precision at a recall is the best that any threshold with at least that recall has.
        best = np.maximum.accumulate(precision[::-1])[::-1]
        pr.append(best[np.minimum(first, len(best) - 1)])
    return {"roc": np.array(roc).reshape(-1, len(GRID)), "pr": np.array(pr).reshape(-1, len(GRID))}


def _small_multiples(count: int, height: float = 1.9) -> tuple[Figure, list]:
    columns = min(6, count)
    rows = math.ceil(count / columns)
    width, tall = max(4.0, 0.7 + 1.85 * columns), 1.0 + height * rows
    figure = Figure(figsize=(width, tall))
    FigureCanvasAgg(figure)
    # Margins in inches; a layout engine measures every axis and takes longer than the drawing.
    figure.subplots_adjust(
        left=0.65 / width, right=1 - 0.1 / width, bottom=0.55 / tall, top=1 - 0.4 / tall, wspace=0.3, hspace=0.45
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, list(axes[:count])


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(axis, text: str) -> None:
    axis.set_title(textwrap.fill(textwrap.shorten(text, 54, placeholder="…"), 27), fontsize=7, pad=3)


def _ticks(axis) -> None:
    axis.xaxis.set_major_locator(MultipleLocator(0.5))
    axis.yaxis.set_major_locator(MultipleLocator(0.5))
    axis.tick_params(labelsize=7)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG; equal figures give equal files."""
    buffer = io.BytesIO()
    # A fixed salt and no date make equal pictures equal files; "$" in a name is not a formula.
    with rc_context({"svg.hashsalt": "brgsa", "svg.fonttype": "path", "text.parse_math": False}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
