"""One retrieval measurement from its options to its folder of results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brgsa.errors import InputError, UsageError
from brgsa.files.output_folder import output_folder
from brgsa_training.evaluate.benchmark import Benchmark
from brgsa_training.evaluate.pairs import Embeddings, Pairs, embed_reports, pair, read_embeddings, read_reports, unit
from brgsa_training.evaluate.reference import reference_table
from brgsa_training.evaluate.report import ReportTable, print_table, write_outputs
from brgsa_training.evaluate.retrieval import (
    MAP_KS,
    RECALL_KS,
    average_precision_at,
    ct_clip_overlap,
    label_overlap_at,
    mean_intervals,
    nearest,
    pair_ranks,
    recall_hits,
    score_vectors,
)
from brgsa_training.evaluate.table_files import read_patients
from brgsa_training.evaluate.tables import read_labels

COLUMNS = ("direction", "metric", "k", "value", "chance", "queries", "pool", "duplicates", "definition")
NOTE = (
    "Intervals are 95 % percentile intervals over resampled patients with the pool as it is. Compare only with numbers "
    "of the same pool, duplicate policy and definition."
)
_KEEP = "every volume and report kept; ties share their places"
_FIRST = "first volume of each study, first of equal reports"
_RECALL = "the right one is among the K best"
_AP = "average precision, relevant: shares a positive label; divided by K; query left out"
_OVERLAP = "mean overlap (Jaccard) of label sets; query left out"
_CT_CLIP = "CT-CLIP: label overlap, query kept, volumes without labels dropped, mean over this K and all smaller"


def run_retrieve(arguments: argparse.Namespace) -> None:
    """Measure, print the table, write the folder of results."""
    with output_folder(arguments.out, "retrieval"):
        _retrieve(arguments)


def _retrieve(arguments: argparse.Namespace) -> None:
    if not (arguments.reports or arguments.texts or arguments.labels):
        raise UsageError("give --reports or --texts for reports and scans, or --labels for scans alone")
    benchmark = Benchmark.load(arguments.benchmark)
    images = read_embeddings(arguments.images)
    if arguments.score != "direct" and images.from_bank is None:
        raise UsageError(f"{arguments.images}: has no embeddings from the bank; use --score direct")
    names = patients_of(images.cases, benchmark, arguments.patients)
    rows, notes = [], []
    if arguments.reports or arguments.texts:
        pairs, notes = pair(images, text_embeddings(arguments), names)
        rows += _report_rows(pairs, arguments)
    if not arguments.patients and all(case == patient for case, (patient, _) in names.items()):
        notes = [*notes, "every scan counts as its own patient and study; give --patients where that is wrong"]
    if arguments.labels:
        rows += _volume_rows(images, names, benchmark, arguments)
    tables = [ReportTable("table", "Numbers in brackets are 95 % intervals.", COLUMNS, rows)]
    published = reference_table("ct-rate-retrieval")
    if published is not None and benchmark.name == "ct-rate-18":
        tables.append(published)
    facts = [("Score", arguments.score), *(("Note", note) for note in notes)]
    for name, value in facts:
        print(f"{name}: {value}")
    print(f"\n{NOTE}\n")
    print_table(tables[0])
    out = Path(arguments.out)
    run = {
        "command": sys.argv,
        "score": arguments.score,
        "duplicates": arguments.duplicates,
        "compat": arguments.compat,
        "iterations": arguments.bootstraps,
        "seed": arguments.seed,
        "notes": notes,
    }
    write_outputs(out, "Retrieval", NOTE, facts, tables, [], run)
    print(f"\nResults in {out} (open report.html)")


def text_embeddings(arguments: argparse.Namespace) -> Embeddings:
    """Return the text embeddings that the options ask for.

    Raises:
        UsageError: both or neither of --reports and --texts, or --reports without --weights.
    """
    if bool(arguments.reports) == bool(arguments.texts):
        raise UsageError("give one of --reports and --texts")
    if arguments.texts:
        return read_embeddings(arguments.texts)
    if not arguments.weights:
        raise UsageError("--reports needs --weights: the weights that the scans were embedded with")
    return embed_reports(read_reports(arguments.reports), arguments.weights, arguments.device)


def patients_of(cases: Sequence[str], benchmark: Benchmark | None, patients: str | None) -> dict[str, tuple[str, str]]:
    """Return case -> (patient, study), from --patients, from the benchmark's pattern, or the case itself.

    Raises:
        InputError: --patients does not cover all cases.
    """
    if patients:
        given = read_patients(patients)
        without = [case for case in cases if case not in given]
        if without:
            raise InputError(f"{patients}: {len(without)} of {len(cases)} cases are not in it, first {without[0]!r}")
        return {case: (given[case][0], given[case][1] or case) for case in cases}
    pattern = benchmark.case_pattern if benchmark is not None else None
    matches = {case: pattern.fullmatch(case) if pattern is not None else None for case in cases}
    if pattern is None or not all(matches.values()):
        return {case: (case, case) for case in cases}
    study = "study" if "study" in pattern.groupindex else "patient"
    return {case: (match["patient"], match[study]) for case, match in matches.items()}


def first_of_each(pairs: Pairs) -> Pairs:
    """Keep the first scan of every study, and of those the first of every report (equal text embeddings)."""
    kept, studies, reports = [], set(), set()
    for row, study in enumerate(pairs.studies):
        report = pairs.text.vectors[row].tobytes()
        if study not in studies and report not in reports:
            kept.append(row)
        studies.add(study)
        reports.add(report)
    return pairs.select(kept)


def _report_rows(pairs: Pairs, arguments: argparse.Namespace) -> list[dict]:
    if arguments.duplicates == "first":
        pairs = first_of_each(pairs)
    n = len(pairs.image.cases)
    images = score_vectors(pairs.image.vectors, pairs.image.from_bank, arguments.score)
    with tqdm(total=n, desc="ranking", unit="query", delay=2, leave=False) as bar:
        better, ties, better_back, ties_back = pair_ranks(unit(pairs.text.vectors), images, bar.update)
    ks = [k for k in RECALL_KS if k <= n]
    rows = []
    for direction, hits in (
        ("report to volume", recall_hits(better, ties, ks)),
        ("volume to report", recall_hits(better_back, ties_back, ks)),
    ):
        rows += _rows(direction, "R@K", ks, hits, pairs.clusters, n, arguments, _RECALL)
        for row in rows[-len(ks) :]:
            row["chance"] = row["k"] / n
    return rows


def _volume_rows(
    images: Embeddings, names: dict[str, tuple[str, str]], benchmark: Benchmark, arguments: argparse.Namespace
) -> list[dict]:
    table = read_labels(
        arguments.labels,
        {name: benchmark.label_columns(name) for name in benchmark.measured},
        benchmark.case_column,
        uncertain=arguments.uncertain,
    )
    place = {case: row for row, case in enumerate(table.cases)}
    cases = [case for case in images.cases if case in place]
    if arguments.duplicates == "first":
        first: dict[str, str] = {}
        for case in cases:
            first.setdefault(names[case][1], case)
        cases = list(first.values())
    if len(cases) < 3:
        raise InputError(f"{arguments.labels}: labels and embeddings share {len(cases)} cases; at least 3 are needed")
    labels = np.nan_to_num(table.values[[place[case] for case in cases]])
    chosen = images.select(cases)
    # The mean of both cosines is one dot product of the embeddings side by side.
    parts = {"direct": [chosen.vectors], "bank": [chosen.from_bank], "final": [chosen.vectors, chosen.from_bank]}
    sides = parts[arguments.score]
    vectors = np.concatenate([unit(side) for side in sides], axis=1) / np.sqrt(len(sides))
    clusters = np.unique([names[case][0] for case in cases], return_inverse=True)[1]
    n = len(cases)
    options = (clusters, n, arguments)
    if arguments.compat:
        with_labels = int((labels.sum(axis=1) > 0).sum())
        ks = [k for k in MAP_KS if k <= with_labels]
        values = ct_clip_overlap(vectors, labels, ks)
        return _rows("volume to volume", "MAP@K", ks, values, clusters, with_labels, arguments, _CT_CLIP)
    ks = [k for k in MAP_KS if k < n]
    neighbours = nearest(vectors, vectors, max(ks), np.arange(n))
    precision = average_precision_at(neighbours, labels, ks)
    overlap = label_overlap_at(neighbours, labels, labels, ks)
    return [
        *_rows("volume to volume", "MAP@K", ks, precision, *options, _AP),
        *_rows("volume to volume", "overlap@K", ks, overlap, *options, _OVERLAP),
    ]


def _rows(
    direction: str,
    metric: str,
    ks: Sequence[int],
    values: np.ndarray,
    clusters: np.ndarray,
    pool: int,
    arguments: argparse.Namespace,
    definition: str,
) -> list[dict]:
    means, lower, upper = mean_intervals(values, clusters, arguments.bootstraps, arguments.seed)
    queries = int((~np.isnan(values[:, 0])).sum())
    duplicates = _FIRST if arguments.duplicates == "first" else _KEEP
    return [
        {
            "direction": direction,
            "metric": metric,
            "k": k,
            "value": float(means[i]),
            "value_lower": float(lower[i]),
            "value_upper": float(upper[i]),
            "queries": queries,
            "pool": pool,
            "duplicates": duplicates,
            "definition": definition,
        }
        for i, k in enumerate(ks)
    ]
