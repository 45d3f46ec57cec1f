"""The model and the optimizer that a recipe describes."""

import logging

import torch
from torch import nn

from brgsa.errors import UsageError
from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa.weights.folder import open_weights
from brgsa_training.pretrain.material import Material
from brgsa_training.pretrain.recipe import OptimizerConfig, Recipe, StartConfig
from brgsa_training.pretrain.start import (
    centre_patches,
    load_image,
    load_text,
    principal_patches,
    spread_projections,
    text_vocabulary_size,
)

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def model_config(recipe: Recipe, vocabulary_size: int) -> BrgSAConfig:
    """The configuration of the model that a recipe trains."""
    sizes = {name: value for name, value in recipe.to_dict()["model"].items() if name != "text"}
    text = recipe.to_dict()["model"]["text"] | {"vocab_size": vocabulary_size}
    if text["max_position_embeddings"] < recipe.model.text_length:
        raise UsageError("model.text.max_position_embeddings is less than model.text_length. Raise it.")
    extra = {"notice": recipe.weights.notice} if recipe.weights.notice else {}
    return BrgSAConfig(**sizes, text=text, **extra)


def new_model(recipe: Recipe, material: Material) -> BrgSAModel:
    """Make the model of a recipe with all that it starts from.

    Raises:
        UsageError: a start that does not fit the vocabulary, the sizes or the crops, or two that exclude each other.
        SetupError: a start that cannot be read.
    """
    start, tokenizer = recipe.start, material.tokenizer
    _require_one_start(start)
    size = text_vocabulary_size(start.text) if start.text else tokenizer.size
    if size < tokenizer.size:
        raise UsageError(f"{tokenizer.vocabulary} has {tokenizer.size} word pieces, start.text knows {size}.")
    model = BrgSAModel(model_config(recipe, size))
    if start.weights:
        given = open_weights(start.weights).load_model().state_dict()
        differing = [name for name, tensor in model.state_dict().items() if given[name].shape != tensor.shape]
        if differing:
            raise UsageError(f"start.weights has another size of {differing[0]}. Change model, or start otherwise.")
        model.load_state_dict(given)
    if start.image:
        left_out = load_image(model, start.image)
        log.info("start.image: left out %d tensors of %s", len(left_out), start.image)
    if start.text:
        load_text(model, start.text)
    if start.principal:
        principal_patches(model.vision, material.train, start.principal)
    if start.data_dependent:
        if not start.image:  # its encoder has learned with the tokens as they are
            centre_patches(model.vision, material.train, start.data_dependent)
        spread_projections(model, material.train, start.data_dependent)
    return model


def _require_one_start(start: StartConfig) -> None:
    """Statistics of the data must not write over what was learned."""
    for learned, statistics in (("image", ["principal"]), ("weights", ["principal", "data_dependent"])):
        given = [name for name in statistics if getattr(start, name)]
        if getattr(start, learned) and given:
            raise UsageError(
                f"{' and '.join(f'start.{name}' for name in given)} would write over what start.{learned} brings. "
                f"Give {' '.join(f'--start.{name} 0' for name in given)}."
            )


def new_optimizer(module: nn.Module, values: OptimizerConfig) -> torch.optim.Optimizer:
    """Make the optimizer of all parameters that are trained, in one group as in the released code."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return OPTIMIZERS[values.kind](trained, lr=values.lr, betas=tuple(values.betas), weight_decay=values.weight_decay)
