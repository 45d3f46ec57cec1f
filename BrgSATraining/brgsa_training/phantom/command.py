"""`brgsa-training phantom`: make data sets of digital phantoms."""

import argparse
import os
from pathlib import Path

from brgsa.errors import UsageError


def add_parser(subparsers) -> None:
    """Add `phantom` with its own sub-commands."""
    parser = subparsers.add_parser("phantom", help="make digital chest phantoms, and train on them")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_generate_parser(commands)
    add_demonstration_parser(commands)
    add_study_parser(commands)


def add_generate_parser(subparsers) -> None:
    """Add `phantom generate`."""
    parser = subparsers.add_parser(
        "generate",
        help="write volumes, reports, labels and captions",
        description="Write digital chest CT phantoms: volumes (NIfTI, HU), reports, labels, captions and a manifest. "
        "The same options give the same files on any number of workers; run again to go on after an interruption.",
    )
    parser.add_argument("--count", type=int, required=True, metavar="N", help="number of phantoms")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed gives other patients (default 0)"
    )
    parser.add_argument(
        "--grid",
        default="coarse",
        metavar="GRID",
        help="coarse (64,64,64 voxels of 6 mm), full (256,256,128 of 1.5 x 1.5 x 3 mm) or X,Y,Z voxels of the same "
        "384 mm field (default coarse)",
    )
    parser.add_argument("--masks", action="store_true", help="also write one mask per abnormality and case")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument(
        "--split",
        default="train=0.8,valid=0.1,test=0.1",
        metavar="NAME=SHARE,...",
        help="how the cases are divided (default train=0.8,valid=0.1,test=0.1)",
    )
    parser.set_defaults(run=run_generate)


def run_generate(arguments: argparse.Namespace) -> None:
    """Write the data set and say where it is."""
    from brgsa_training.phantom.generate import Plan, generate, parse_split
    from brgsa_training.phantom.grid import parse_grid

    grid, split = parse_grid(arguments.grid), parse_split(arguments.split)
    plan = Plan(arguments.count, arguments.seed, grid.shape, split, arguments.masks)
    workers = _processes("--workers", arguments.workers)
    generate(plan, arguments.out, min(workers, plan.count))
    print(f"{plan.count} phantoms in {arguments.out} (list: manifest.csv, truth: labels.csv, text: captions.json)")


def add_demonstration_parser(subparsers) -> None:
    """Add `phantom train-demo`."""
    parser = subparsers.add_parser(
        "train-demo",
        help="make phantoms, train the demonstration weights on them and measure them",
        description="Make digital phantoms, train a small model on their reports and measure it on fresh phantoms. "
        "The recipe phantom made the weights that come with brgsa; phantom-quick is a smaller run of the same. "
        "Run it again with the same options to go on after an interruption.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder, or that of this run")
    parser.add_argument(
        "--recipe",
        default="phantom",
        metavar="NAME",
        help="phantom, phantom-quick, or a YAML file (default phantom)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps (default: those of the recipe)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the model and of all draws in training")
    parser.add_argument("--phantoms", type=int, metavar="N", help="phantoms to train on")
    parser.add_argument("--test", type=int, metavar="N", help="phantoms to measure on")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that make phantoms (default: one per core)")
    parser.set_defaults(run=run_demonstration)


def run_demonstration(arguments: argparse.Namespace) -> None:
    """Train, and print where the weights are and how good."""
    from brgsa_training.phantom.demonstration import train_demonstration
    from brgsa_training.phantom.training_set import PhantomRecipe
    from brgsa_training.pretrain.command import parse

    changes = {
        "training.steps": arguments.steps,
        "training.seed": arguments.seed,
        "phantoms.train": arguments.phantoms,
        "phantoms.test": arguments.test,
    }
    options = [f"--{name}={value}" for name, value in changes.items() if value is not None]
    recipe = parse(["--config", arguments.recipe, *options], PhantomRecipe)[0]
    workers = _processes("--workers", arguments.workers)
    result = train_demonstration(recipe, arguments.out, workers)
    print("\n".join(result.lines()))
    print(f"weights: {result.weights} (use them with `brgsa score --weights {result.weights}`)")


def add_study_parser(subparsers) -> None:
    """Add `phantom study`."""
    parser = subparsers.add_parser(
        "study",
        help="train with and without bank and summaries, and compare",
        description="Re-test the claims of the paper on phantoms: a recipe as it is, without the bank, without "
        "summaries and without both, and the same image encoder trained with labels, each with several seeds on the "
        "same phantoms. Takes an hour or more; run it again with the same options to go on after an interruption, "
        "and with more seeds to add them.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder, or that of this study")
    parser.add_argument("--recipe", default="phantom-study", metavar="NAME", help="a recipe, or a YAML file")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each variant (default 3)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of the second stage (default: of the recipe)")
    parser.add_argument("--long-steps", type=int, metavar="N", help="steps of the first stage")
    parser.add_argument("--phantoms", type=int, metavar="N", help="phantoms to train on")
    parser.add_argument("--validation", type=int, metavar="N", help="phantoms that choose the checkpoint")
    parser.add_argument("--test", type=int, metavar="N", help="phantoms to measure on")
    parser.add_argument("--jobs", type=int, metavar="N", help="trainings at a time (default: one per core)")
    parser.set_defaults(run=run_study_command)


def run_study_command(arguments: argparse.Namespace) -> None:
    """Train, and print the tables."""
    from brgsa_training.phantom.phantom import make_labels
    from brgsa_training.phantom.study import Options, run_study
    from brgsa_training.phantom.study_report import write_study

    jobs = _processes("--jobs", arguments.jobs)
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds} is not possible: use 1 or more.")
    options = Options(
        arguments.recipe,
        arguments.seeds,
        arguments.steps,
        arguments.long_steps,
        arguments.phantoms,
        arguments.validation,
        arguments.test,
    )
    threads = max(1, (os.cpu_count() or 1) // jobs)
    runs = run_study(options, arguments.out, jobs, threads)
    recipe = options.variant()
    phantoms, training = recipe.phantoms, recipe.training
    made_by = (
        f"{phantoms.train} training phantoms, {phantoms.long_steps} + {training.steps} steps of {training.batch_size}, "
        f"checkpoint chosen on {phantoms.validation} validation phantoms."
    )
    labels = make_labels(phantoms.seeds()[2])
    print(write_study(runs, labels, arguments.out, made_by))
    print(f"Tables and picture: {arguments.out / 'study.md'}, study.csv, study.png")


def _processes(option: str, wanted: int | None) -> int:
    """How many processes an option asks for, one per core without it."""
    if wanted is not None and wanted < 1:
        raise UsageError(f"{option} {wanted} is not possible: use 1 or more.")
    return wanted or os.cpu_count() or 1
