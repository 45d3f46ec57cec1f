"""One evaluation from its options to its folder of results."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from brgsa.calibration import FILE_NAME, Calibration
from brgsa.errors import InputError, UsageError
from brgsa.files import file_sha256, require_writable, write_csv, write_json
from brgsa.files.output_folder import output_folder
from brgsa_training.evaluate import honest, paper, plots
from brgsa_training.evaluate.benchmark import Benchmark
from brgsa_training.evaluate.calibration import (
    fit_calibration,
    fitted_on_file,
    merge,
    provenance,
    with_calibration,
)
from brgsa_training.evaluate.cohort import Cohort, align, join
from brgsa_training.evaluate.metrics import all_negative
from brgsa_training.evaluate.reference import reference_table
from brgsa_training.evaluate.report import Picture, ReportTable, print_table, write_outputs
from brgsa_training.evaluate.score_source import (
    PHANTOMS,
    ScoreInfo,
    make_phantoms,
    refuse_other_weights,
    score_cache,
    score_info,
    score_scans,
    weights_folder,
)
from brgsa_training.evaluate.table_files import read_patients, read_row_order
from brgsa_training.evaluate.tables import Table, read_labels, read_scores

HONEST_NOTE = (
    "Protocol honest: thresholds and probabilities are not fitted here but come with the scores or from --calibration, "
    "intervals are 95 % percentile intervals over resampled patients."
)
PAPER_NOTE = (
    "Protocol paper, as released with BrgSA: thresholds are fitted on these test labels and intervals resample "
    "volumes, not patients. F1, accuracy, precision and recall are optimistic and intervals too narrow. Shown are "
    "bootstrap means; Overall is the mean of the rows above, its interval the mean of their intervals."
)
PAPER_COLUMNS = (
    "abnormality", "cases", "positives", "threshold", "auroc", "auprc", "weighted_f1", "weighted_f1_all_negative",
    "accuracy", "accuracy_all_negative", "precision", "recall", "recall_at_1", "precision_at_3",
)  # fmt: skip
_PAPER_NAMES = {"AUROC": "auroc", "AUPRC": "auprc", "F1": "weighted_f1", "Accuracy": "accuracy"}
_PAPER_NAMES |= {"Precision": "precision", "Recall": "recall"}
_PAPER_BASELINES = ("weighted_f1_all_negative", "accuracy_all_negative")
_CASE_NAMES = {"Recall@1": "recall_at_1", "Precision@3": "precision_at_3"}
_HONEST_TABLE = (*(c for c in honest.COLUMNS[:-1] if not c.endswith(("_lower", "_upper"))), "delong", "warnings")
_FOREST = ("abnormality", "auroc", "auroc_lower", "auroc_upper")
_OWN_LABELS = "WARNING: the calibration was fitted on this very label file; what depends on thresholds is optimistic"
_LISTED = 20


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate, print the table, write the folder of results."""
    benchmark = Benchmark.load(arguments.benchmark).without(arguments.leave_out or ())
    with output_folder(arguments.out or f"evaluation-{benchmark.name}", "evaluation") as held:
        _evaluate(arguments, benchmark, held.path)


def _evaluate(arguments: argparse.Namespace, benchmark: Benchmark, out: Path) -> None:
    cohort, info, files = load_cohort(arguments, benchmark, out)
    if arguments.calibration:
        calibration = _calibration(arguments.calibration)
        cohort = with_calibration(cohort, calibration, info.prompts, info.style, info.kind)
        if fitted_on_file(calibration, files[0]):
            cohort = replace(cohort, notes=(*cohort.notes, _OWN_LABELS))
    elif not np.isnan(cohort.thresholds).all():
        weights = arguments.weights or (None if arguments.scores or benchmark.name != "phantom" else "phantom")
        note = _source_of_thresholds(weights, info, files[0])
        cohort = replace(cohort, notes=(*cohort.notes, note))
    if arguments.one_per_study:
        cohort = cohort.one_per_study()
    other = align(cohort, _read_scores(Path(arguments.compare), benchmark, arguments)) if arguments.compare else None
    run = evaluate_paper_run if arguments.protocol == "paper" else evaluate_honest_run
    table, pictures = run(cohort, arguments)
    tables = [table]
    if other is not None:
        tables.append(_compare(cohort, other, arguments))
        files.append(Path(arguments.compare))
    published = reference_table(benchmark.name, cohort.labels)
    if published is not None:
        tables.append(published)
    facts = _facts(cohort, benchmark, info, arguments.uncertain)
    note = PAPER_NOTE if arguments.protocol == "paper" else HONEST_NOTE
    for name, value in facts:
        print(f"{name}: {value}")
    print(f"\n{note}\n")
    for table in tables:
        if table is not published:
            print_table(table)
            print()
    if published is not None:
        print(f"{len(published.rows)} published numbers of this benchmark are in reference.csv and in the report.")
    _write_cases(out, cohort)
    write_outputs(
        out,
        f"{benchmark.title}: protocol {arguments.protocol}",
        note,
        facts,
        tables,
        pictures,
        {
            "command": sys.argv,
            "protocol": arguments.protocol,
            "threshold_rule": arguments.threshold_rule if arguments.protocol == "paper" else None,
            "benchmark": benchmark.name,
            "iterations": iterations_of(arguments),
            "seed": arguments.seed,
            "cases": len(cohort.cases),
            "patients": len(set(cohort.patients)) if cohort.clustered else None,
            "labels_without_score": len(cohort.missing),
            "scores_without_labels": len(cohort.extra),
            "weights_checksum": info.checksum,
            "precision": info.precision,
            "prompts": info.style,
            "score": info.kind,
            "uncertain": arguments.uncertain,
            "files": [{"path": str(path), "sha256": file_sha256(path)} for path in files],
            "notes": list(cohort.notes),
        },
    )
    print(f"Results in {out} (open report.html)")


def run_calibrate(arguments: argparse.Namespace) -> None:
    """Fit a calibration and write it into the weights folder."""
    if not arguments.weights:
        raise UsageError("calibrate needs --weights: the folder whose calibration.json is written")
    benchmark = Benchmark.load(arguments.benchmark).without(arguments.leave_out or ())
    folder, checksum = weights_folder(arguments.weights)
    require_writable(folder)
    cohort, info, files = load_cohort(arguments, benchmark, Path(arguments.out or f"calibration-{benchmark.name}"))
    refuse_other_weights(info, checksum, files[-1])
    entries, warnings = fit_calibration(cohort, info.prompts, arguments.method, info.style, info.kind)
    name = arguments.set or benchmark.name
    fit = provenance(name, cohort, files, arguments.method)
    calibration = merge(Calibration.load(folder), entries, fit, checksum)
    write_json(folder / FILE_NAME, calibration.to_json())
    for warning in warnings:
        print(f"! {warning}")
    print(f"{len(entries)} abnormalities fitted on {name} ({len(cohort.cases)} cases), written to {folder / FILE_NAME}")


def load_cohort(arguments: argparse.Namespace, benchmark: Benchmark, out: Path) -> tuple[Cohort, ScoreInfo, list[Path]]:
    """Read labels and scores as the options say; return the cohort, what is known of the scores, and the files read.

    Raises:
        UsageError: options are missing or contradict each other.
        InputError: a table cannot be used, or cases are missing under --strict.
    """
    scores_path, labels_path = _sources(arguments, benchmark, out)
    labels = read_labels(
        labels_path,
        _label_ways(benchmark, arguments.label_column),
        arguments.case_column or benchmark.case_column,
        arguments.patient_column,
        read_row_order(arguments.row_order) if arguments.row_order else None,
        arguments.uncertain,
    )
    scores = _read_scores(scores_path, benchmark, arguments)
    patients = read_patients(arguments.patients) if arguments.patients else None
    cohort = join(labels, scores, arguments.join, benchmark.case_pattern, patients)
    if arguments.strict and (cohort.missing or cohort.extra):
        raise InputError(
            f"--strict: {len(cohort.missing)} labelled cases have no score, first "
            f"{_first(cohort.missing)}; {len(cohort.extra)} scored cases have no labels, first {_first(cohort.extra)}"
        )
    info = score_info(scores_path, benchmark.abnormalities, arguments.prompts, arguments.score)
    return cohort, info, [labels_path, scores_path]


def evaluate_honest_run(cohort: Cohort, arguments: argparse.Namespace) -> tuple[ReportTable, list[Picture]]:
    """Run protocol honest; return its table and pictures."""
    iterations = iterations_of(arguments)
    with _bar(iterations, "bootstrap over patients") as bar:
        result = honest.evaluate_honest(cohort, iterations, arguments.seed, bar.update)
    caption = "Numbers in brackets are 95 % intervals."
    table = ReportTable("table", caption, _HONEST_TABLE, result.rows, mean_row=True)
    pictures = [
        plots.forest(
            *([row[key] for row in result.rows] for key in ("abnormality", "auroc", "auroc_lower", "auroc_upper"))
        ),
        *plots.curves(cohort, arguments.seed),
        plots.reliability(cohort),
        plots.confusion(cohort, cohort.thresholds),
    ]
    return table, [picture for picture in pictures if picture is not None]


def evaluate_paper_run(cohort: Cohort, arguments: argparse.Namespace) -> tuple[ReportTable, list[Picture]]:
    """Run protocol paper; return its table and pictures."""
    iterations = iterations_of(arguments)
    with _bar(iterations, "bootstrap as released") as bar:
        result = paper.evaluate_paper(cohort.scores, cohort.labels, iterations, bar.update, arguments.threshold_rule)
    summaries = {metric: result.summary(metric) for metric in paper.METRICS}
    rows = []
    for c, name in enumerate(cohort.abnormalities):
        labels = cohort.labels[:, c]
        row = {"abnormality": name, "cases": int((~np.isnan(labels)).sum()), "positives": int((labels == 1).sum())}
        row["threshold"] = result.thresholds[c]
        for metric, column in _PAPER_NAMES.items():
            values = {key: value[c] for key, value in summaries[metric].items()}
            row |= _paper_values(column, result.point[metric][c], values)
        absent = all_negative(np.array([float(row["positives"])]), np.array([float(row["cases"])]))
        row |= {column: getattr(absent, column.removesuffix("_all_negative"))[0] for column in _PAPER_BASELINES}
        row["warnings"] = f"only {row['positives']} positives" if row["positives"] < honest.FEW else ""
        rows.append(row)
    overall = {"abnormality": "Overall", "cases": len(cohort.cases), "positives": sum(row["positives"] for row in rows)}
    for metric, column in (_PAPER_NAMES | _CASE_NAMES).items():
        overall |= _paper_values(column, np.mean(result.point[metric]), result.overall(metric))
    overall |= {column: np.nanmean([row[column] for row in rows]) for column in _PAPER_BASELINES}
    if np.isnan(cohort.labels).any():
        overall["warnings"] = "labels are missing: left out by abnormality, a rule that the released code does not have"
    rows.append(overall)
    columns = (*PAPER_COLUMNS, "warnings")
    averages = ", ".join(f"{name} {value:.3f}" for name, value in result.averages.items())
    caption = f"Bootstrap means with the released 95 % intervals. On the whole set: {averages}."
    table = ReportTable("table", caption, columns, rows, mean_row=True)
    values = [[row.get(f"auroc_{key}", np.nan) for row in rows] for key in ("mean", "lower", "upper")]
    pictures = [
        plots.forest([row["abnormality"] for row in rows], *values),
        *plots.curves(cohort, arguments.seed),
        plots.confusion(cohort, result.thresholds),
    ]
    return table, [picture for picture in pictures if picture is not None]


def iterations_of(arguments: argparse.Namespace) -> int:
    """Return the number of resamples of a run."""
    default = paper.ITERATIONS if arguments.protocol == "paper" else honest.ITERATIONS
    return arguments.bootstraps or default


def _paper_values(column: str, point: float, summary: dict) -> dict[str, float]:
    ends = {"mean": "mean", "std": "std", "ci_lower": "lower", "ci_upper": "upper"}
    return {column: float(point)} | {f"{column}_{name}": float(summary[key]) for key, name in ends.items()}


def _sources(arguments: argparse.Namespace, benchmark: Benchmark, out: Path) -> tuple[Path, Path]:
    """Return the score table and the label table, scoring first where the options ask for it."""
    chosen = [name for name in ("scores", "scans", "cache") if getattr(arguments, name)]
    if len(chosen) > 1:
        raise UsageError(f"give one of --{' and --'.join(chosen)}, not {len(chosen)}")
    weights, labels = arguments.weights, arguments.labels
    if not chosen and benchmark.name == "phantom" and not labels:
        volumes, labels = make_phantoms(out / "phantoms", arguments.count or PHANTOMS)
        return _score(weights or "phantom", [str(volumes)], None, benchmark, arguments, out), labels
    if arguments.count:
        raise UsageError("--count goes with --benchmark phantom without --labels, --scores, --scans and --cache")
    if not labels:
        raise UsageError(f"give the label table with --labels. Where to get it: {benchmark.get}")
    if not chosen:
        raise UsageError("give --scores TABLE, or --weights W with --scans PATH or --cache DIR")
    if arguments.scores:
        return Path(arguments.scores), Path(labels)
    if not weights:
        raise UsageError(f"--{chosen[0]} needs --weights: the weights to score with")
    return _score(weights, arguments.scans, arguments.cache, benchmark, arguments, out), Path(labels)


def _score(
    weights: str,
    scans: list[str] | None,
    cache: str | None,
    benchmark: Benchmark,
    arguments: argparse.Namespace,
    out: Path,
) -> Path:
    options = (
        benchmark.abnormalities,
        out / "scores",
        arguments.prompts,
        arguments.score,
        arguments.device,
        arguments.force,
    )
    return score_cache(weights, Path(cache), *options) if cache else score_scans(weights, scans, *options)


def _label_ways(benchmark: Benchmark, chosen: list[str] | None) -> dict[str, list[tuple[str, ...]]]:
    ways = {name: benchmark.label_columns(name) for name in benchmark.measured}
    for text in chosen or ():
        name, equals, column = text.partition("=")
        if not equals or name not in ways:
            raise UsageError(f"--label-column {text!r} is not NAME=COLUMN with a NAME of {', '.join(ways)}")
        ways[name] = [(column,)]
    return ways


def _read_scores(path: Path, benchmark: Benchmark, arguments: argparse.Namespace) -> Table:
    return read_scores(
        path,
        {name: benchmark.score_columns(name) for name in benchmark.measured},
        arguments.case_column,
        read_row_order(arguments.row_order) if arguments.row_order else None,
        benchmark.released_columns,
    )


def _compare(cohort: Cohort, other: np.ndarray, arguments: argparse.Namespace) -> ReportTable:
    iterations = arguments.bootstraps or honest.ITERATIONS
    with _bar(iterations, "paired bootstrap") as bar:
        rows = honest.evaluate_difference(cohort, other, iterations, arguments.seed, bar.update)
    columns = tuple(c for c in honest.DIFFERENCE_COLUMNS if c not in ("lower", "upper"))
    caption = (
        f"AUROC minus that of {Path(arguments.compare).name}, on equal resamples of patients; p corrected after Holm "
        "over the abnormalities."
    )
    return ReportTable("difference", caption, columns, rows, mean_row=True)


def _source_of_thresholds(weights: str | None, info: ScoreInfo, labels: Path) -> str:
    """Say what is known of the thresholds that a score table brings along."""
    folder, checksum = weights_folder(weights) if weights else (None, None)
    calibration = Calibration.load(folder) if folder and info.checksum in (None, checksum) else None
    if calibration is None:
        return (
            "thresholds are those of the score table, which does not say on what they were fitted; if these were the "
            "cases evaluated here, what depends on thresholds is optimistic (--weights W has the labels checked)"
        )
    if fitted_on_file(calibration, labels):
        return _OWN_LABELS
    return f"thresholds are those of the score table, fitted on {calibration.fitted_on}"


def _calibration(folder: str) -> Calibration:
    path = Path(folder)
    found = Calibration.load(path if path.is_dir() else weights_folder(folder)[0])
    if found is None:
        raise InputError(f"{folder}: has no {FILE_NAME}; make one with `brgsa-training calibrate`")
    return found


def _facts(cohort: Cohort, benchmark: Benchmark, info: ScoreInfo, uncertain: str) -> list[tuple[str, str]]:
    counts = {"cases": len(cohort.cases), "studies": len(set(cohort.studies)), "patients": len(set(cohort.patients))}
    known = {"cases": counts["cases"]} | (
        {key: counts[key] for key in ("studies", "patients")} if cohort.clustered else {}
    )
    size = []
    for key, value in known.items():
        expected = benchmark.expected.get(key)
        size.append(f"{value:,} {key}" + (f" (complete: {expected:,})" if expected and expected != value else ""))
    facts = [("Benchmark", f"{benchmark.title} ({benchmark.name})"), ("Evaluated", ", ".join(size))]
    facts.append(("Uncertain labels (-1)", "left out" if uncertain == "ignore" else f"count as {uncertain}"))
    if cohort.missing:
        facts.append(("Labels without score", _listing(cohort.missing)))
    if cohort.extra:
        facts.append(("Scores without labels", _listing(cohort.extra)))
    if info.notice:
        facts.append(("Weights", info.notice))
    facts += [("Not measured", f"{name}: {reason}") for name, reason in benchmark.exclusions]
    return facts + [("Note", note) for note in (*benchmark.notes, *cohort.notes)]


def _listing(cases: tuple[str, ...]) -> str:
    shown = ", ".join(cases[:_LISTED])
    return f"{len(cases)}: {shown}" + (", … (all in cases.csv)" if len(cases) > _LISTED else "")


def _first(cases: tuple[str, ...]) -> str:
    return repr(cases[0]) if cases else "none"


def _write_cases(out: Path, cohort: Cohort) -> None:
    rows = [(case, "evaluated") for case in cohort.cases]
    rows += [(case, "labels without score") for case in cohort.missing]
    rows += [(case, "score without labels") for case in cohort.extra]
    write_csv(out / "cases.csv", ("case", "state"), rows)


def _bar(total: int, what: str) -> tqdm:
    return tqdm(total=total, desc=what, unit="resample", delay=2, leave=False)
