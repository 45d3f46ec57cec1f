"""The validation loss: whole batches, whole volumes, and the same captions each time."""

import itertools

import torch
from torch import Tensor

from brgsa.errors import UsageError
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import PairDataset
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.gradcache import Inputs, PairEncoder, model_inputs
from brgsa_training.pretrain.loss import loss_terms
from brgsa_training.pretrain.recipe import Recipe


def validation_batches(studies: int, recipe: Recipe, world: World) -> StudyBatches:
    """The batches of a validation of `studies` studies: of the training's size, or of all that there are.

    Raises:
        UsageError: there are too few to contrast.
    """
    training = recipe.training
    count = min(training.batch_size, studies // world.size * world.size)
    if count < 2:
        raise UsageError(
            f"{studies} studies are too few to validate on: a batch needs 2, and one for each of {world.size} "
            "process(es). Give more, or set data.validation_split to null and data.validation_share to 0."
        )
    return StudyBatches(studies, count, training.seed, world.rank, world.size, shuffle=False)


@torch.no_grad()
def validation_loss(
    encoder: PairEncoder, pairs: PairDataset, recipe: Recipe, device: torch.device, world: World
) -> float:
    """Mean over batches of `pairs` of the recipe's loss, the same at every process.

    Args:
        encoder: in eval mode, on `device`.
        world: the processes that share the batches.
    """
    batches = validation_batches(len(pairs), recipe, world)
    losses = []
    for batch in itertools.islice(BatchLoader(pairs, batches, recipe.data.workers), batches.per_epoch):
        embeddings = encoder.rebuild(*_embed(encoder, model_inputs(batch, pairs, device), recipe.training.chunk))
        losses.append(loss_terms(embeddings, recipe.loss.scale, world.gather, world.rank).total(recipe.loss))
    return world.mean(torch.stack(losses).mean()).item()


def _embed(encoder: PairEncoder, inputs: Inputs, chunk: int | None) -> tuple[Tensor, Tensor]:
    chunks = zip(*(part.split(chunk or len(part)) for part in inputs), strict=True)
    embedded = [encoder(*part) for part in chunks]
    return torch.cat([part.image for part in embedded]), torch.cat([part.text for part in embedded])
