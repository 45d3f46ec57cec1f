"""`brgsa-training score-on-ray`: `brgsa score` for many scans on a Ray cluster."""

import argparse
import sys
from pathlib import Path


def add_parser(subparsers) -> None:
    from brgsa.commands.score import INPUT_HELP, add_force_option, add_scorer_options

    parser = subparsers.add_parser(
        "score-on-ray",
        help="score many scans on a Ray cluster",
        description="Do what `brgsa score` does with workers of a Ray cluster (RAY_ADDRESS, or this machine). "
        "All machines have to see scans, weights and results under the same paths.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT_HELP)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    add_scorer_options(parser)
    parser.add_argument("--abnormalities", default="ct-rate-18", metavar="LIST", help="(default: %(default)s)")
    parser.add_argument("--prompts", choices=("single", "pair", "ensemble"), default="single")
    parser.add_argument("--score", choices=("final", "direct", "bank"), default="final")
    add_force_option(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="models held at a time")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0, metavar="G", help="may be a part of one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from brgsa.abnormalities import AbnormalityList
    from brgsa.ct.cases import find_cases
    from brgsa.errors import UsageError
    from brgsa_training.cluster.score import score_on_ray

    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers} is not possible: use 1 or more.")
    scorer_options = {name: getattr(arguments, name) for name in ("device", "precision", "fidelity")}
    result = score_on_ray(
        arguments.weights,
        find_cases(arguments.inputs),
        AbnormalityList.parse(arguments.abnormalities),
        arguments.out,
        workers=arguments.workers,
        gpus_per_worker=arguments.gpus_per_worker,
        scorer_options=scorer_options,
        prompts=arguments.prompts,
        kind=arguments.score,
        force=arguments.force,
        command=sys.argv,
    )
    print(f"{result.done} scored, {result.resumed} were done before, {result.counts()}: {arguments.out}")
    result.raise_failures()
