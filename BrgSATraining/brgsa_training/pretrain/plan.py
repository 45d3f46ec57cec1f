"""What a run would do, in words and numbers, before it does it."""

import torch

from brgsa.device import PRECISIONS, choose_device
from brgsa.model import BrgSAModel
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.pretrain.build import model_config
from brgsa_training.pretrain.flops import step_flops
from brgsa_training.pretrain.material import Material
from brgsa_training.pretrain.memory import estimate
from brgsa_training.pretrain.recipe import Recipe


def describe(recipe: Recipe, material: Material, processes: int = 1) -> list[str]:
    """Lines for `--dry-run`: data, steps, model, memory, arithmetic. Needs no accelerator.

    Args:
        processes: that will share the run.

    Raises:
        UsageError, InputError: the batch does not fit the studies or the processes.
    """
    training, train = recipe.training, material.train
    config = model_config(recipe, material.tokenizer.size)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in BrgSAModel(config).parameters())
    per_epoch = StudyBatches(len(train), training.batch_size, world=processes).per_epoch
    steps = training.steps or training.epochs * per_epoch
    share = training.batch_size // processes
    held = min(share, training.chunk or share)
    device = choose_device("auto") if training.device == "auto" else training.device
    element_bytes = PRECISIONS[training.precision].itemsize
    memory = estimate(config, parameters, train.shape, held, element_bytes, training.checkpoint_blocks)
    flops = step_flops(config, train.shape, recipe.model.text_length)
    cases = sum(len(study.cases) for study in train.studies)
    validation = f"{len(material.validation)} studies" if material.validation else "none"
    return [
        f"training    {len(train)} studies ({cases} volumes), validation {validation}",
        f"volumes     {_by(train.shape)} voxels of {_by(train.volumes.plan.spacing)} mm",
        f"steps       {steps} of {training.batch_size} pairs on {processes} process(es); {per_epoch} per epoch",
        f"model       {parameters / 1e6:.1f} million parameters, {training.precision} on {device}",
        f"memory      {memory.total / 1e9:.2f} GB per process: {memory.state / 1e9:.2f} GB for weights and optimizer, "
        f"{memory.activations / 1e9:.2f} GB for {held} pairs at a time",
        f"arithmetic  {flops / 1e12:.3f} TFLOP per pair, {flops * steps * training.batch_size / 1e18:.3g} EFLOP in all",
    ]


def _by(sizes) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
