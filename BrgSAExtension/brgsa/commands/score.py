"""`brgsa score`: scans in, tables of abnormality scores out."""

import argparse
import sys

INPUT_HELP = (
    "NIfTI, NRRD or MetaImage file, DICOM folder or file, folder tree of any of these, or CSV with a `path` column"
)
PRECISION_HELP = (
    "number format of the image encoder; bf16 and fp16 take half the memory and change scores in the third decimal "
    "(default: %(default)s)"
)


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "score",
        help="score scans against a list of abnormalities",
        description="Score scans against a list of abnormalities. A run that was cut off goes on where it stopped.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for scores.csv, cases/ and failures.csv")
    add_scorer_options(parser)
    parser.add_argument(
        "--abnormalities",
        default="ct-rate-18",
        metavar="LIST",
        help="preset, file (JSON, CSV, text) or 'name; name' (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts",
        choices=("single", "pair", "ensemble"),
        default="single",
        help="the prompt itself, minus its negation, or the mean of several phrases (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        choices=("final", "direct", "bank"),
        default="final",
        help="mean of both, embedding alone, or its reconstruction from the bank alone (default: %(default)s)",
    )
    parser.add_argument(
        "--heatmap",
        nargs="+",
        default=[],
        metavar="NAME",
        help="write heat maps: names of the list, all-positive, or top:N",
    )
    parser.add_argument(
        "--heatmap-method",
        choices=("rollout", "similarity"),
        default="rollout",
        help="attention rollout, or similarity of every patch with the prompt (default: %(default)s)",
    )
    parser.add_argument(
        "--heatmap-format",
        default="nifti",
        metavar="nifti,dicom",
        help="files of the heat maps: NIfTI, DICOM Parametric Map (DICOM input) (default: %(default)s)",
    )
    parser.add_argument("--report", default="", metavar="html,sr", help="write an HTML page, a DICOM SR (DICOM input)")
    parser.add_argument("--series", metavar="NUMBER", help="number or UID of the DICOM series, of several")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="score only part I of N of the cases")
    parser.add_argument("--overwrite", action="store_true", help="score all cases again")
    add_force_option(parser)
    parser.set_defaults(run=run, output="scores")


def add_weights_option(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--weights`, with what it means for the command."""
    parser.add_argument("--weights", default="phantom", metavar="NAME|DIR", help=f"{meaning} (default: %(default)s)")


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help="do scans that fail the input checks, too; mark them")


def add_scorer_options(parser: argparse.ArgumentParser) -> None:
    """Add what `scorer_of` reads."""
    add_weights_option(parser, "weights")
    parser.add_argument("--fidelity", choices=("exact", "reference"), default="exact", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="(default: %(default)s)")
    parser.add_argument("--precision", default="fp32", metavar="fp32|bf16|fp16", help=PRECISION_HELP)


def scorer_of(arguments: argparse.Namespace):
    """Load the weights that the options name, once it is sure that the results can be written.

    Raises:
        UsageError: `--out` holds something else than output of this kind.
        BrgSAError: it cannot be written.
    """
    from brgsa.files.output_folder import require_output
    from brgsa.scoring import Scorer

    output = getattr(arguments, "output", None)  # a command that makes a new folder of its own names none
    if arguments.out and output:
        require_output(arguments.out, output)
    print(f"loading weights {arguments.weights} ...", file=sys.stderr)
    scorer = Scorer.from_pretrained(
        arguments.weights, device=arguments.device, precision=arguments.precision, fidelity=arguments.fidelity
    )
    print(f"scoring on {scorer.device} in {scorer.precision}", file=sys.stderr)
    return scorer


def cases_of(arguments: argparse.Namespace) -> list:
    """The cases that the inputs stand for; --series goes with a single one.

    Raises:
        UsageError: --series with several cases.
    """
    from dataclasses import replace

    from brgsa.ct.cases import find_cases
    from brgsa.errors import UsageError

    cases = find_cases(arguments.inputs)
    if arguments.series:
        if len(cases) > 1:
            raise UsageError(f"--series goes with one DICOM folder, and the inputs are {len(cases)} cases.")
        cases = [replace(cases[0], series=arguments.series)]
    return cases


def run(arguments: argparse.Namespace) -> int:
    """Score and print a table."""
    from brgsa.abnormalities import AbnormalityList
    from brgsa.scores import cases_table, scores_table

    abnormalities = AbnormalityList.parse(arguments.abnormalities)
    from brgsa.batch.case_files import CaseFiles

    files = CaseFiles.parse(
        arguments.heatmap, arguments.heatmap_method, arguments.report, abnormalities, arguments.heatmap_format
    )
    cases = cases_of(arguments)
    from brgsa.batch.score import Shard, score_cases
    from brgsa.scores import ScanScores, flags_of

    shard = Shard.parse(arguments.shard)
    scorer = scorer_of(arguments)
    result = score_cases(
        scorer,
        cases,
        abnormalities,
        arguments.out,
        prompts=arguments.prompts,
        kind=arguments.score,
        shard=shard,
        overwrite=arguments.overwrite,
        force=arguments.force,
        files=files,
        command=sys.argv,
    )
    scores = [ScanScores.from_dict(record) for record in result.scores]
    if len(scores) == 1:
        print(scores_table(scores[0]))
    elif scores:
        print(cases_table(scores))
        if scorer.weights.notice:
            print(scorer.weights.notice)
    flagged = sum(bool(flags_of(each.findings)) for each in scores)
    resumed = f", {result.resumed} were done before" if result.resumed else ""
    kinds = {file["kind"] for record in result.scores for file in record.get("files", [])}
    made = ["heat maps"] * bool(kinds & {"heatmap", "heatmap-dicom"}) + ["reports"] * bool(kinds & {"html", "sr"})
    beside = f", {' and '.join(made)} in its folder cases" if made else ""
    print(
        f"{result.done} scored{resumed}, {result.counts()}, {flagged} flagged. Results in {arguments.out}{beside}",
        file=sys.stderr,
    )
    result.raise_failures()
    return 0
