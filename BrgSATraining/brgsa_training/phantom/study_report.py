"""Tables and picture of a study.

OUT/study.md          what was asked, the tables with intervals, how to read them
OUT/study.csv         AUROC of every run, kind of score and abnormality
OUT/study.png         AUROC by group, gap and use of the bank, one dot per seed

Intervals: percentiles over resamples of the test phantoms and, of the runs, the seeds; the same resample serves all
variants, so a difference has the interval of a paired comparison. Few seeds say little about all seeds: look at each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from brgsa.files import atomic_open, atomic_path, write_csv
from brgsa_training.evaluate.bootstrap import cluster_counts, percentile_interval
from brgsa_training.evaluate.metrics import RankedScores
from brgsa_training.evaluate.modality_gap import AFTER, BEFORE
from brgsa_training.phantom.prevalence import prevalences
from brgsa_training.phantom.study import CEILING, VARIANTS, Run, read_scores

GROUPS = ("head", "medium", "rare")
RESAMPLES = 1000
COLOURS = ("#1f5fa8", "#58a4d8", "#c2570c", "#e8a060", "#6e7781")
# What the bank and the summaries do, each with and without the other.
EFFECTS = (
    ("the bank, with summaries", "brgsa", "no bank"),
    ("the bank, without summaries", "no summaries", "neither"),
    ("summaries, with the bank", "brgsa", "no summaries"),
    ("summaries, without the bank", "no bank", "neither"),
)


@dataclass(frozen=True)
class Results:
    """AUROC of every run, of the sample and of every resample.

    Attributes:
        areas: name -> (seeds, abnormalities, 1 + resamples); the first is the sample.
        drawn_seeds: (resamples, seeds).
        facts: name -> the content of `result.json` of every seed.
    """

    areas: dict[str, np.ndarray]
    drawn_seeds: np.ndarray
    facts: dict[str, list[dict[str, Any]]]

    def mean(self, name: str, columns: Sequence[int]) -> np.ndarray:
        """Mean AUROC over some abnormalities and all seeds; the sample, then the resamples: (1 + resamples,)."""
        by_seed = np.nanmean(self.areas[name][:, columns], axis=1)  # (seeds, 1 + resamples)
        resamples = np.arange(1, by_seed.shape[1])
        drawn = by_seed[self.drawn_seeds.T, resamples].mean(0)
        return np.concatenate([[by_seed[:, 0].mean()], drawn])

    def by_seed(self, name: str, columns: Sequence[int]) -> np.ndarray:
        """Mean AUROC over some abnormalities for every seed, (seeds,)."""
        return np.nanmean(self.areas[name][:, columns, 0], axis=1)


def measure(runs: Sequence[Run], labels: np.ndarray, resamples: int = RESAMPLES) -> Results:
    """AUROC of all runs, with `final` scores where there is a bank and `direct` scores under "NAME, direct".

    Args:
        labels: of the test phantoms, (N, abnormalities).
    """
    read = read_scores(runs)
    counts = [np.ones((len(labels), 1)), *(chunk for _, chunk in cluster_counts(np.arange(len(labels)), resamples))]
    areas: dict[str, list[np.ndarray]] = {}
    facts: dict[str, list[dict[str, Any]]] = {}
    for run, (scores, said) in zip(runs, tqdm(read, desc="intervals", unit="run"), strict=True):
        facts.setdefault(run.name, []).append(said)
        for kind, values in scores.items():
            name = run.name if kind == "final" or len(scores) == 1 else f"{run.name}, {kind}"
            ranked = [RankedScores(values[:, a], labels[:, a].astype(float)) for a in range(labels.shape[1])]
            areas.setdefault(name, []).append(
                np.stack([np.concatenate([one.areas(chunk)[0] for chunk in counts]) for one in ranked])
            )
    seeds = len(next(iter(areas.values())))
    drawn = np.random.default_rng(0).integers(0, seeds, (resamples, seeds))
    return Results({name: np.stack(values) for name, values in areas.items()}, drawn, facts)


def write_study(runs: Sequence[Run], labels: np.ndarray, out: Path, made_by: str) -> str:
    """Write tables and picture, and return the text of study.md."""
    results = measure(runs, labels)
    rows = prevalences()
    write_csv(
        out / "study.csv",
        ("variant", "seed", "abnormality", "group", "positives", "auroc"),
        (
            (name, seed, row.name, row.group, int(labels[:, a].sum()), round(float(values[a, 0]), 4))
            for name, per_seed in results.areas.items()
            for seed, values in enumerate(per_seed)
            for a, row in enumerate(rows)
        ),
    )
    text = "\n".join(_lines(results, labels, made_by))
    with atomic_open(out / "study.md") as file:
        file.write(text)
    with atomic_path(out / "study.png") as temporary:
        _picture(results).savefig(temporary, format="png", dpi=130)
    return text


def _lines(results: Results, labels: np.ndarray, made_by: str) -> list[str]:
    rows, seeds = prevalences(), results.drawn_seeds.shape[1]
    groups = {"all": range(len(rows))} | {
        group: [at for at, row in enumerate(rows) if row.group == group] for group in GROUPS
    }
    lines = [
        "# The bank and the summaries, re-tested on phantoms",
        "",
        f'{made_by} {seeds} seeds, {len(labels)} test phantoms, prompt "There is X". AUROC: mean over seeds with 95 % '
        "interval (resampled phantoms and seeds). `labels` is the same image encoder trained with the true labels.",
        "",
        "| variant | " + " | ".join(f"{name} ({len(columns)})" for name, columns in groups.items()) + " | each seed |",
        "|---" * (len(groups) + 2) + "|",
    ]
    for name in results.areas:
        cells = [_cell(results.mean(name, columns)) for columns in groups.values()]
        each = ", ".join(f"{value:.3f}" for value in results.by_seed(name, groups["all"]))
        lines.append(f"| {name} | {' | '.join(cells)} | {each} |")
    lines += ["", "Differences of AUROC, paired by phantom and seed:", ""]
    lines += ["| effect of | " + " | ".join(groups) + " | each seed |", "|---" * (len(groups) + 2) + "|"]
    for effect, with_it, without in EFFECTS:
        cells = [_cell(results.mean(with_it, c) - results.mean(without, c), "+.3f") for c in groups.values()]
        each = results.by_seed(with_it, groups["all"]) - results.by_seed(without, groups["all"])
        lines.append(f"| {effect} | {' | '.join(cells)} | {', '.join(f'{value:+.3f}' for value in each)} |")
    lines += ["", *_alignment_lines(results), "", *_abnormality_lines(results, labels), ""]
    return lines


def _alignment_lines(results: Results) -> list[str]:
    """Gap and bank: mean over seeds, and the smallest and largest of them."""
    lines = [
        "Gap between test phantoms and captions as in training, and use of the bank: mean over seeds (least to most).",
        "",
        "| variant | state | distance of centroids | separability | paired - unpaired cosine |",
        "|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        for state in (BEFORE, AFTER):
            gaps = [gap for said in results.facts[name] for gap in said["gaps"] if gap["state"] == state]
            if gaps:
                keys = ("centroid_distance", "separability", "cosine_margin")
                cells = [_range([gap[key] for gap in gaps]) for key in keys]
                lines.append(f"| {name} | {state} | {' | '.join(cells)} |")
    lines += ["", "| variant | modality | rows | used rows | dead rows | entropy of a row (nats) |", "|---" * 6 + "|"]
    for name in VARIANTS:
        for modality in ("image", "text"):
            used = [said["bank"][modality] for said in results.facts[name] if said["bank"]]
            if used:
                cells = [_range([each[key] for each in used], ".1f") for key in ("used_rows", "dead_rows")]
                lines.append(
                    f"| {name} | {modality} | {used[0]['rows']} | {' | '.join(cells)} "
                    f"| {_range([each['entropy'] for each in used], '.2f')} |"
                )
    return lines


def _abnormality_lines(results: Results, labels: np.ndarray) -> list[str]:
    names = (*VARIANTS, CEILING)
    lines = [
        "AUROC of every abnormality, mean over seeds with 95 % interval:",
        "",
        "| abnormality | group | positives | " + " | ".join(names) + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for at, row in enumerate(prevalences()):
        cells = [_cell(results.mean(name, [at])) for name in names]
        lines.append(f"| {row.name} | {row.group} | {int(labels[:, at].sum())} | {' | '.join(cells)} |")
    return lines


def _cell(values: np.ndarray, form: str = ".3f") -> str:
    low, high = percentile_interval(values[1:])
    return f"{values[0]:{form}} ({float(low):{form}} to {float(high):{form}})"


def _range(values: Sequence[float], form: str = ".3f") -> str:
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _picture(results: Results) -> Figure:
    """Left: AUROC by group, mean with interval and one dot per seed. Right: the gap, before and after the bank."""
    rows, names = prevalences(), (*VARIANTS, CEILING)
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for n, name in enumerate(names):
        for g, group in enumerate(("all", *GROUPS)):
            columns = [at for at, row in enumerate(rows) if group in ("all", row.group)]
            x, mean = g + (n - 2) * 0.16, results.mean(name, columns)
            low, high = percentile_interval(mean[1:])
            left.plot([x, x], [low, high], color=COLOURS[n], lw=5, alpha=0.35, solid_capstyle="butt")
            left.plot(x, mean[0], "_", color=COLOURS[n], ms=12, mew=2.5, label=name if g == 0 else None)
            each = results.by_seed(name, columns)
            left.plot([x] * len(each), each, ".", color="#222222", ms=3)
    left.axhline(0.5, color="#222222", lw=0.8, ls="--")
    left.set(ylabel="AUROC", title="Zero-shot AUROC: mean, 95 % interval, seeds (dashed: chance)")
    left.set_xticks(range(4), ("all", *GROUPS))
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    ticks = []
    for n, name in enumerate(VARIANTS):
        for state, word in ((BEFORE, "before"), (AFTER, "after")):
            gaps = [g["centroid_distance"] for s in results.facts[name] for g in s["gaps"] if g["state"] == state]
            if gaps:
                right.bar(len(ticks), np.mean(gaps), 0.8, color=COLOURS[n], alpha=1 if state == BEFORE else 0.5)
                right.plot([len(ticks)] * len(gaps), gaps, ".", color="#222222", ms=3)
                ticks.append("\n".join([*name.split(), word]))
    right.set_xticks(range(len(ticks)), ticks, fontsize=7)
    right.set(ylabel="distance of centroids", title="Modality gap, before and after the bank")
    for axis in (left, right):
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
