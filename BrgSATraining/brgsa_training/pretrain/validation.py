"""The validation loss: whole batches, whole volumes, and the same captions each time."""

import itertools

import torch
from torch import Tensor

from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import PairDataset
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.gradcache import Inputs, PairEncoder, model_inputs
from brgsa_training.pretrain.loss import loss_terms
from brgsa_training.pretrain.recipe import Recipe


@torch.no_grad()
def validation_loss(
    encoder: PairEncoder, pairs: PairDataset, recipe: Recipe, device: torch.device, world: World
) -> float:
    """Mean over batches of `pairs` of the recipe's loss, the same at every process.

    Args:
        encoder: in eval mode, on `device`.
        world: the processes that share the batches.
    """
    training = recipe.training
    count = min(training.batch_size, len(pairs) // world.size * world.size)
    batches = StudyBatches(len(pairs), count, training.seed, world.rank, world.size, shuffle=False)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for batch in itertools.islice(BatchLoader(pairs, batches, recipe.data.workers), batches.per_epoch):
        embeddings = encoder.rebuild(*_embed(encoder, model_inputs(batch, pairs, device), training.chunk))
        total += loss_terms(embeddings, recipe.loss.scale, world.gather, world.rank).total(recipe.loss)
    return (world.mean(total) / batches.per_epoch).item()


def _embed(encoder: PairEncoder, inputs: Inputs, chunk: int | None) -> tuple[Tensor, Tensor]:
    chunks = zip(*(part.split(chunk or len(part)) for part in inputs), strict=True)
    embedded = [encoder(*part) for part in chunks]
    return torch.cat([part.image for part in embedded]), torch.cat([part.text for part in embedded])
