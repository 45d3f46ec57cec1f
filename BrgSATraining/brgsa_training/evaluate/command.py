"""`brgsa-training evaluate`, `calibrate`, `retrieve` and `modality-gap`."""

import argparse

from brgsa_training.summarize.labels import add_uncertain_option


def add_parser(subparsers) -> None:
    """Add `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure scores on a benchmark",
        description="Measure scores on a benchmark and write table.csv, table.md, table.tex, report.html and run.json. "
        "With --benchmark phantom and nothing else, phantoms are made and scored with the demonstration weights.",
    )
    _add_cohort_options(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for the results (default: evaluation-BENCHMARK)")
    parser.add_argument(
        "--protocol",
        choices=("honest", "paper"),
        default="honest",
        help="honest: patients resampled, thresholds from other data; paper: as released (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold-rule",
        choices=("nearest", "grid", "weighted-f1"),
        default="nearest",
        help="of protocol paper: nearest to (0, 1), as BrgSA; the same on a grid from 0 to 1; or the best "
        "weighted F1 (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        metavar="WEIGHTS",
        help="weights folder whose calibration.json gives thresholds and probabilities",
    )
    parser.add_argument("--compare", metavar="TABLE", help="scores of another model: paired differences of AUROC")
    parser.add_argument("--one-per-study", action="store_true", help="keep the first scan of each study")
    parser.add_argument(
        "--bootstraps", type=_count, metavar="N", help="resamples (default: 2,000 for honest, 5,000 for paper)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the resamples of honest (default: 0)")
    parser.set_defaults(run=_run("evaluation", "run_evaluate"))


def add_calibrate_parser(subparsers) -> None:
    """Add `calibrate`."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit thresholds and probabilities on calibration data",
        description="Fit a threshold and a probability for every abnormality and write them into calibration.json of "
        "the weights folder, which `brgsa score` uses from then on. Never use the test set.",
    )
    _add_cohort_options(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for scores made here (default: calibration-BENCHMARK)")
    parser.add_argument(
        "--method", choices=("platt", "isotonic"), default="platt", help="of the probabilities (default: %(default)s)"
    )
    parser.add_argument("--set", metavar="NAME", help="name of the set in the provenance (default: the benchmark's)")
    parser.set_defaults(run=_run("evaluation", "run_calibrate"))


def add_retrieve_parser(subparsers) -> None:
    """Add `retrieve`."""
    parser = subparsers.add_parser(
        "retrieve",
        help="measure report and volume retrieval",
        description="Measure report to volume, volume to report and, with --labels, volume to volume retrieval.",
    )
    _add_pair_options(parser, texts_required=False)
    parser.add_argument("--labels", metavar="TABLE", help="label table, for volume to volume MAP@K")
    add_uncertain_option(parser)
    parser.add_argument("--benchmark", default="ct-rate-18", metavar="NAME|FILE", help="names its labels, and patients")
    parser.add_argument("--score", choices=("final", "direct", "bank"), default="final", help="(default: %(default)s)")
    parser.add_argument(
        "--duplicates",
        choices=("keep", "first"),
        default="keep",
        help="keep: every volume and report stays, ties share their places; first: one volume of each study and one of "
        "equal reports (default: %(default)s)",
    )
    parser.add_argument(
        "--compat",
        choices=("ct-clip",),
        help="volume to volume as CT-CLIP computes it: label overlap, the query in its own results, K not kept apart",
    )
    parser.set_defaults(run=_run("retrieval_run", "run_retrieve"))


def add_modality_gap_parser(subparsers) -> None:
    """Add `modality-gap`."""
    parser = subparsers.add_parser(
        "modality-gap",
        help="measure the gap between image and text embeddings",
        description="Measure how far image and text embeddings lie apart, before and after the bank, and picture them.",
    )
    _add_pair_options(parser, texts_required=True)
    parser.set_defaults(run=_run("modality_gap_run", "run_modality_gap"))


def _add_cohort_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", required=True, metavar="NAME|FILE", help="a benchmark by name, or its JSON file")
    parser.add_argument("--labels", metavar="TABLE", help="label table: a case column and one column per label")
    source = parser.add_argument_group("scores", "a table, or weights with scans or with a cache")
    source.add_argument("--scores", metavar="TABLE", help="CSV (wide, or long as `brgsa score` writes), .npz or .npy")
    source.add_argument("--weights", metavar="NAME|DIR", help="weights to score with (calibrate: to write into)")
    source.add_argument("--scans", nargs="+", metavar="PATH", help="scans, folders, lists: inputs of `brgsa score`")
    source.add_argument("--cache", metavar="DIR", help="cache of `brgsa-training preprocess`")
    source.add_argument("--force", action="store_true", help="do scans that fail the input checks, too; mark them")
    source.add_argument("--count", type=_count, metavar="N", help="phantoms to make (default: 200)")
    source.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="(default: %(default)s)")
    source.add_argument("--prompts", choices=("single", "pair", "ensemble"), default="single", help="(default: single)")
    source.add_argument("--score", choices=("final", "direct", "bank"), default="final", help="(default: final)")
    names = parser.add_argument_group("names", "how rows and columns are found")
    names.add_argument("--row-order", metavar="FILE", help="case names of rows without names, in order")
    names.add_argument("--case-column", metavar="COLUMN", help="column with the case name")
    names.add_argument("--patient-column", metavar="COLUMN", help="column of the label table with the patient")
    names.add_argument("--patients", metavar="FILE", help="CSV with case, patient and perhaps study")
    names.add_argument(
        "--join",
        choices=("case", "labels-by-study", "scores-by-study"),
        default="case",
        help="what the names of a table name (default: %(default)s)",
    )
    names.add_argument(
        "--label-column", action="append", metavar="NAME=COLUMN", help="label column of an abnormality; may be repeated"
    )
    names.add_argument(
        "--leave-out", action="append", metavar="NAME", help="abnormality that is not measured; may be repeated"
    )
    add_uncertain_option(names)
    names.add_argument("--strict", action="store_true", help="refuse cases that are in one table only")


def _add_pair_options(parser: argparse.ArgumentParser, texts_required: bool) -> None:
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR|NPZ",
        help="folder of `brgsa embed`, or .npz with cases, embeddings and perhaps embeddings_from_bank",
    )
    texts = "" if texts_required else "; without it only volume to volume"
    parser.add_argument("--reports", metavar="TABLE", help=f"reports to embed with --weights: CSV or JSON{texts}")
    parser.add_argument("--texts", metavar="NPZ", help="text embeddings instead: .npz as for --images")
    parser.add_argument("--weights", metavar="NAME|DIR", help="weights that embed the reports and hold the bank")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="(default: %(default)s)")
    parser.add_argument("--patients", metavar="FILE", help="CSV with case, patient and perhaps study")
    parser.add_argument("--bootstraps", type=_count, default=2000, metavar="N", help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of resamples and projections (default: 0)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _run(module: str, function: str):
    def run(arguments: argparse.Namespace):
        import importlib

        try:
            loaded = importlib.import_module(f"brgsa_training.evaluate.{module}")
        except ModuleNotFoundError as error:
            from brgsa.errors import SetupError

            raise SetupError(
                f"evaluation needs the package {error.name!r}. Install it: python -m pip install 'brgsa[training]'"
            ) from error
        return getattr(loaded, function)(arguments)

    return run
