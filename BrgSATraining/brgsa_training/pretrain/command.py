"""`brgsa-training pretrain` and `pretrain-image`: a recipe and its overrides become a training run."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

NO_OUT = "the recipe has no out. Give --out FOLDER for checkpoints and results."


def add_parser(subparsers) -> None:
    # jsonargparse reads the arguments, not argparse: without an option character all of them are plain words here.
    parser = subparsers.add_parser("pretrain", help="train the model from a recipe", add_help=False, prefix_chars="\0")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def add_image_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "pretrain-image", help="warm up the image encoder by masked autoencoding", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run_image)


def run(namespace: argparse.Namespace) -> None:
    recipe, resume, dry_run = parse(namespace.arguments)

    from brgsa.device import choose_device
    from brgsa.errors import UsageError
    from brgsa.files.output_folder import require_output
    from brgsa_training.pretrain.checkpoint import TRAINING_RUN
    from brgsa_training.pretrain.distributed import world_from_environment
    from brgsa_training.pretrain.material import open_material
    from brgsa_training.pretrain.plan import describe
    from brgsa_training.pretrain.trainer import Trainer

    if not recipe.out and not dry_run:
        raise UsageError(NO_OUT)
    material = open_material(recipe)
    if dry_run:
        print("\n".join(describe(recipe, material, int(os.environ.get("WORLD_SIZE", "1")))))
        return
    require_output(recipe.out, TRAINING_RUN)
    with world_from_environment(choose_device(recipe.training.device)) as world:
        if world.first:
            print("\n".join(describe(recipe, material, world.size)), file=sys.stderr)
        trainer = Trainer(recipe, material, world=world)

        def stop(*_) -> None:
            trainer.stop_requested = True  # Slurm and the keyboard ask; the step in hand is finished and saved

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        result = trainer.run(resume)
        if world.first:
            judged = (
                f"; best at step {result.best_step}: {result.judgement:.4f}" if result.judgement is not None else ""
            )
            print(f"{result.steps} steps{judged}\nweights: {result.weights}")


def run_image(namespace: argparse.Namespace) -> None:
    from brgsa_training.pretrain.image_trainer import ImageRecipe

    recipe, resume, dry_run = parse(namespace.arguments, ImageRecipe)

    from brgsa.device import choose_device
    from brgsa.errors import UsageError
    from brgsa.files.output_folder import require_output
    from brgsa_training.pretrain.checkpoint import TRAINING_RUN
    from brgsa_training.pretrain.distributed import world_from_environment
    from brgsa_training.pretrain.image_trainer import ImageTrainer

    if not recipe.out:
        raise UsageError(NO_OUT)
    require_output(recipe.out, TRAINING_RUN)
    with world_from_environment(choose_device(recipe.training.device)) as world:
        trainer = ImageTrainer(recipe, world=world)
        training = recipe.training
        if world.first:
            print(
                f"{len(trainer.dataset)} volumes, {training.steps} steps of {training.batch_size}, "
                f"{trainer.batches.per_epoch} per epoch, {trainer.dtype} on {trainer.device}",
                file=sys.stderr,
            )
        if dry_run:
            return
        path = trainer.run(resume)
        if world.first:
            print(f"image encoder: {path} (for --start.image)")


def parse(arguments: Sequence[str], kind: type | None = None) -> tuple[Any, bool | str, bool]:
    """Return the recipe, what to resume from (False, True for auto, or a path), and whether to plan only.

    Args:
        kind: dataclass of the recipe; `Recipe` by default.

    Raises:
        UsageError: an unknown recipe, name or value.
        InputError: a file is not a recipe.
    """
    from jsonargparse import ArgumentParser

    from brgsa.errors import UsageError
    from brgsa_training.pretrain.recipe import Recipe
    from brgsa_training.pretrain.recipe_file import read_recipe, require_groups

    kind = kind or Recipe
    command = "pretrain" if kind is Recipe else "pretrain-image"
    parser = ArgumentParser(
        prog=f"brgsa-training {command}",
        description="Train from a recipe. Every value of the recipe can be given as an option. "
        f"On several GPUs start it with: torchrun --nproc-per-node N -m brgsa_training.cli {command} ...",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="recipe: a YAML file, or the name of one in recipes/")
    parser.add_argument("--resume", type=str, default="", help="auto: go on where a run was cut; or a checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print data, steps and memory, and stop")
    parser.add_class_arguments(kind, as_group=True)

    def merged(name: str) -> str:
        values = read_recipe(name)
        require_groups(name, values, kind().to_dict())
        return json.dumps(values, default=str)  # jsonargparse takes the text of a file as well as its path

    arguments = list(arguments)
    for number, argument in enumerate(arguments):
        if argument == "--config" and number + 1 < len(arguments):
            arguments[number + 1] = merged(arguments[number + 1])
        elif argument.startswith("--config="):
            arguments[number] = f"--config={merged(argument.partition('=')[2])}"
    try:
        values = parser.parse_args(arguments)
        ready = parser.instantiate_classes(values)
    except argparse.ArgumentError as error:
        raise UsageError(_one_line(error)) from error
    recipe = kind(**{field.name: getattr(ready, field.name) for field in dataclasses.fields(kind)})
    return recipe, True if values.resume == "auto" else values.resume or False, values.dry_run


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:299]}…"
