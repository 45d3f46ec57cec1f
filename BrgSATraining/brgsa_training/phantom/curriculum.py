"""Training on phantoms in two stages: long captions first, then those of the recipe."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from brgsa.model import BrgSAModel
from brgsa_training.phantom.training_set import PhantomRecipe, PhantomSet
from brgsa_training.pretrain.material import material
from brgsa_training.pretrain.recipe import ScheduleConfig, StartConfig
from brgsa_training.pretrain.trainer import Trainer, TrainResult

WARMUP_STEPS = 100  # of the first stage


def train_in_stages(
    recipe: PhantomRecipe,
    out: Path,
    train: PhantomSet,
    validation: PhantomSet,
    judge: Callable[[BrgSAModel], float],
    resume: bool = False,
) -> TrainResult:
    """Train both stages, each into a folder of its own below `out`; the second starts from the best of the first.

    Args:
        recipe: with `data.vocabulary`.
        judge: chooses the checkpoint, see `Trainer`.
        resume: go on where an earlier call was cut.
    """

    def run(stage: PhantomRecipe) -> TrainResult:
        pairs = material(stage, train.volumes, train.studies, validation.volumes, validation.studies)
        return Trainer(stage, pairs, judge=judge).run(resume)

    if recipe.phantoms.long_steps:
        start = run(first_stage(recipe, out / "first-stage")).weights
        recipe = replace(recipe, start=StartConfig(weights=str(start)))
    return run(replace(recipe, out=str(out / "run")))


def first_stage(recipe: PhantomRecipe, out: Path) -> PhantomRecipe:
    """The recipe of the first stage: long captions, which tell much about a scan.

    They cannot be the only ones: a scan with many abnormalities has a longer caption, so the model learns to tell how
    long a caption is, and short prompts then fit scans with few abnormalities whatever they ask for.
    """
    return replace(
        recipe,
        out=str(out),
        data=replace(recipe.data, sentences=recipe.phantoms.long_sentences),
        schedule=ScheduleConfig("constant", min(WARMUP_STEPS, recipe.phantoms.long_steps // 3)),
        training=replace(recipe.training, steps=recipe.phantoms.long_steps),
    )
