"""One measurement of the modality gap from its options to its folder of results."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from brgsa.files import atomic_path
from brgsa.files.output_folder import output_folder
from brgsa_training.evaluate.modality_gap import (
    AFTER,
    BEFORE,
    COLUMNS,
    USAGE_COLUMNS,
    bank_usage,
    measure_gap,
    thin,
)
from brgsa_training.evaluate.pairs import Pairs, pair, read_embeddings, unit
from brgsa_training.evaluate.plots import BLUE, ORANGE, svg
from brgsa_training.evaluate.report import Picture, ReportTable, print_table, write_outputs
from brgsa_training.evaluate.retrieval_run import patients_of, text_embeddings

PICTURED = 800
NOTE = (
    "A gap is a constant offset between the two modalities. The margin, not the gap, says whether a scan is closer to "
    "its own report than to others."
)


def run_modality_gap(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, write pictures and the folder of results."""
    with output_folder(arguments.out, "modality gap"):
        _measure(arguments)


def _measure(arguments: argparse.Namespace) -> None:
    images = read_embeddings(arguments.images)
    texts = text_embeddings(arguments)
    pairs, notes = pair(images, texts, patients_of(images.cases, None, arguments.patients))
    rows = [measure_gap(pairs.image.vectors, pairs.text.vectors, pairs.patients, BEFORE, arguments.seed)]
    has_bank = pairs.image.from_bank is not None and pairs.text.from_bank is not None
    if has_bank:
        rows.append(measure_gap(pairs.image.from_bank, pairs.text.from_bank, pairs.patients, AFTER, arguments.seed))
    tables = [ReportTable("table", "Image and text embeddings.", COLUMNS, rows)]
    if arguments.weights:
        tables.append(_usage(pairs, arguments))
    for table in tables:
        print_table(table)
        print()
    figure = _figure(thin(pairs, PICTURED, arguments.seed), has_bank, arguments.seed)
    out = Path(arguments.out)
    with atomic_path(out / "modality-gap.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    alt = "Image and text embeddings in one plane, by principal components and by t-SNE."
    picture = Picture("Both modalities in one plane", svg(figure), alt)
    facts = [("Pairs", str(len(pairs.image.cases))), *(("Note", note) for note in notes)]
    run = {"command": sys.argv, "seed": arguments.seed, "pairs": len(pairs.image.cases), "notes": notes}
    write_outputs(out, "Modality gap", NOTE, facts, tables, [picture], run)
    print(f"Results in {out} (open report.html)")


def _usage(pairs: Pairs, arguments: argparse.Namespace) -> ReportTable:
    import torch

    from brgsa.weights.folder import open_weights

    bank = open_weights(arguments.weights).load_model().bank
    rows = []
    for modality, vectors in (("image", pairs.image.vectors), ("text", pairs.text.vectors)):
        with torch.inference_mode():
            weights = bank.weights(torch.from_numpy(np.ascontiguousarray(vectors, np.float32))).double().numpy()
        rows.append({"modality": modality, **vars(bank_usage(weights))})
    return ReportTable("bank", "Use of the bank's rows.", USAGE_COLUMNS, rows)


def _figure(pairs: Pairs, has_bank: bool, seed: int) -> Figure:
    """Return PCA and t-SNE, side by side, of both modalities projected together; below them after the bank."""
    states = [(BEFORE, pairs.image.vectors, pairs.text.vectors)]
    if has_bank:
        states.append((AFTER, pairs.image.from_bank, pairs.text.from_bank))
    figure = Figure(figsize=(9, 4.3 * len(states)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(states), 2, squeeze=False)
    for row, (state, image, text) in zip(axes, states, strict=True):
        vectors = np.concatenate([unit(image), unit(text)])
        for axis, (name, plane) in zip(row, _planes(vectors, seed), strict=True):
            for label, colour, points in (
                ("scans", BLUE, plane[: len(image)]),
                ("reports", ORANGE, plane[len(image) :]),
            ):
                axis.scatter(*points.T, s=6, c=colour, alpha=0.5, lw=0, label=label, rasterized=True)
            axis.set_title(f"{name}, {state}", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    axes[0, 0].legend(fontsize=8, markerscale=2)
    return figure


def _planes(vectors: np.ndarray, seed: int) -> list[tuple[str, np.ndarray]]:
    pca = PCA(n_components=2, random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors)
    return [("PCA", pca), ("t-SNE", tsne)]
