"""`brgsa index`: the embeddings of many scans, for `brgsa similar`."""

import argparse
import sys

from brgsa.commands.score import INPUT_HELP, add_force_option, add_scorer_options, cases_of, scorer_of

NAMES_SHOWN = 5


def add_parser(subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "index",
        help="make or extend an index of scans for `brgsa similar`",
        description="Embed scans and put them into an index. Scans that are in it and did not change are not done "
        "again; a run that was cut off goes on where it stopped.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("--out", required=True, metavar="INDEX", help="folder of the index")
    parser.add_argument("--remove-vanished", action="store_true", help="take scans out that are no longer there")
    add_force_option(parser)
    add_scorer_options(parser)
    parser.set_defaults(run=run, output="index", series=None)


def run(arguments: argparse.Namespace) -> int:
    """Index and say what changed."""
    cases = cases_of(arguments)
    from brgsa.batch.index import index_cases

    options = {"remove_vanished": arguments.remove_vanished, "force": arguments.force}
    result = index_cases(scorer_of(arguments), cases, arguments.out, **options)
    print(
        f"{result.added} added, {result.changed} changed, {len(result.moved)} moved, {result.unchanged} unchanged, "
        f"{result.batch.counts()}. {result.scans} scans in {arguments.out}"
    )
    if result.vanished:
        names = ", ".join(case.name for case in result.vanished[:NAMES_SHOWN])
        names += ", ..." if len(result.vanished) > NAMES_SHOWN else ""
        what = "were taken out" if arguments.remove_vanished else "stay in the index (--remove-vanished takes them out)"
        print(f"{len(result.vanished)} scans are no longer where they were and {what}: {names}", file=sys.stderr)
    result.batch.raise_failures()
    return 0
