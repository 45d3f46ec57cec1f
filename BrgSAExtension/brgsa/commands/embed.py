"""`brgsa embed`: image embeddings of scans, one file per case and a manifest."""

import argparse
import sys

from brgsa.commands.score import INPUT_HELP, add_force_option, add_scorer_options, cases_of, scorer_of


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "embed",
        help="write the image embeddings of scans",
        description="Write embeddings/CASE.npz (image, image_from_bank: float32) per scan, and manifest.csv.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the embeddings and manifest.csv")
    parser.add_argument("--series", metavar="NUMBER", help="number or UID of the DICOM series, of several")
    add_force_option(parser)
    add_scorer_options(parser)
    parser.set_defaults(run=run, output="embeddings")


def run(arguments: argparse.Namespace) -> int:
    """Embed and write."""
    cases = cases_of(arguments)
    from brgsa.batch.embed import embed_cases

    result = embed_cases(scorer_of(arguments), cases, arguments.out, force=arguments.force)
    print(
        f"{result.done} embedded, {result.resumed} were done before, {result.counts()}. Results in {arguments.out}",
        file=sys.stderr,
    )
    result.raise_failures()
    return 0
