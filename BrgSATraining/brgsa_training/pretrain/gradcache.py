"""Forward and backward of one batch, whole or in chunks that need the memory of one chunk only.

In chunks (gradient caching, Gao et al., arXiv 2101.06983) all embeddings are computed without a graph, the
loss and its gradient with respect to the embeddings follow, and then every chunk runs again with a graph to carry its
share of that gradient to the weights. Random state (dropout) of the first run is repeated in the second, so the result
is the gradient of the whole batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from brgsa.model import BrgSAModel, Embeddings
from brgsa_training.data.pairs import Batch, PairDataset, to_model_input
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.loss import LossTerms, LossWeights, loss_terms
from brgsa_training.pretrain.state import random_state, set_random_state

Inputs = tuple[Tensor, Tensor, Tensor]  # volume (B, 1, X, Y, Z), word pieces (B, T), attention mask (B, T)


def model_inputs(batch: Batch, pairs: PairDataset, device: torch.device) -> Inputs:
    """Bring a batch of `pairs` to the device and its voxels to the model's range."""
    # Elsewhere than on CUDA such a copy may still read the loader's buffer when that is filled again.
    early = device.type == "cuda"
    voxels, ids, mask = (part.to(device, non_blocking=early) for part in (batch.voxels, batch.ids, batch.mask))
    return to_model_input(voxels, pairs.volumes.plan, pairs.slope, pairs.intercept), ids, mask


class PairEncoder(nn.Module):
    """The part of the model that runs in mixed precision: both encoders and their projections, result in float32.

    It is a module of its own, with the bank inside, because DDP has to wrap all that is trained.
    """

    def __init__(self, model: BrgSAModel, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, volume: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Embeddings:
        mixed = self.dtype != torch.float32
        with torch.autocast(volume.device.type, dtype=self.dtype) if mixed else nullcontext():
            image = self.model.embed_image(volume)
            text = self.model.embed_text(input_ids, attention_mask)
        return self.rebuild(image.float(), text.float())

    def rebuild(self, image: Tensor, text: Tensor) -> Embeddings:
        return Embeddings(image, text, self.model.bank(image), self.model.bank(text))


def backward(
    encoder: nn.Module, inputs: Inputs, weights: LossWeights, world: World | None = None, chunk: int | None = None
) -> tuple[Tensor, LossTerms]:
    """Add the gradient of one batch to the parameters of `encoder`.

    Args:
        encoder: a `PairEncoder`, or DDP around one.
        inputs: this process's share of the batch.
        weights: of the terms.
        world: the processes that share the batch.
        chunk: pairs whose activations are held at a time; None for all at once.

    Returns:
        This process's loss and its terms, detached. Their mean over processes is that of the batch.
    """
    world = world or World()
    if chunk is None or chunk >= len(inputs[0]):
        terms = loss_terms(encoder(*inputs), weights.scale, world.gather, world.rank)
        total = terms.total(weights)
        total.backward()
        return total.detach(), terms
    return _cached(encoder, inputs, weights, world, chunk)


def _cached(encoder, inputs: Inputs, weights: LossWeights, world: World, chunk: int) -> tuple[Tensor, LossTerms]:
    inner: PairEncoder = getattr(encoder, "module", encoder)
    without_exchange = getattr(encoder, "no_sync", nullcontext)
    chunks = list(zip(*(part.split(chunk) for part in inputs), strict=True))

    embedded, states = [], []
    with torch.no_grad():
        for part in chunks:
            states.append(random_state(part[0].device))
            embedded.append(inner(*part))
    image = torch.cat([part.image for part in embedded]).requires_grad_()
    text = torch.cat([part.text for part in embedded]).requires_grad_()
    with without_exchange():
        terms = loss_terms(inner.rebuild(image, text), weights.scale, world.gather, world.rank)
        total = terms.total(weights)
        total.backward()  # reaches the bank's rows, and image.grad and text.grad

    starts = range(0, len(image), chunk)
    for at, part, state in zip(starts, chunks, states, strict=True):
        last = part is chunks[-1]
        with nullcontext() if last else without_exchange(), repeated(state, part[0].device):
            again = encoder(*part)
            carried = (again.image * image.grad[at : at + chunk]).sum() + (
                again.text * text.grad[at : at + chunk]
            ).sum()
            # The bank has its gradient already; DDP exchanges gradients only of what took part in the last backward.
            (carried + 0.0 * again.image_from_bank.sum()).backward()
    return total.detach(), terms


@contextmanager
def repeated(state: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Run a block from a `random_state` of `device`; afterwards the generators are as they were before it."""
    before = random_state(device)
    set_random_state(state, device)
    try:
        yield
    finally:
        set_random_state(before, device)
