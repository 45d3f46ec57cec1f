"""The training loss of BrgSA: contrast the embeddings, rebuild them from the bank, contrast what the bank rebuilt.

With s = 10, v and t the embeddings of B pairs, v^ and t^ what the bank makes of them, CE the mean cross entropy with
the diagonal as target:

    L = contrastive      * (CE(s cos(v, t))   + CE(s cos(v, t)'))
      + reconstruction   * (MSE(v^, v)        + MSE(t^, t))
      + bank_contrastive * (CE(s cos(v^, t^)) + CE(s cos(v^, t^)'))

Both directions are summed, not averaged, and the gradient of MSE flows into both of its sides (docs/method.md e).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from brgsa.model import Embeddings, cosines


@dataclass(frozen=True)
class LossWeights:
    """How much each pair of terms counts, and what cosines are multiplied by. The defaults are the released values.

    Without `bank_contrastive` and `reconstruction` the loss is that of CLIP.
    """

    contrastive: float = 1.0
    reconstruction: float = 0.5
    bank_contrastive: float = 1.0
    scale: float = 10.0


@dataclass(frozen=True)
class LossTerms:
    """The six terms, scalars without their weights."""

    image_to_text: Tensor
    text_to_image: Tensor
    image_reconstruction: Tensor
    text_reconstruction: Tensor
    bank_image_to_text: Tensor
    bank_text_to_image: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        return (
            weights.contrastive * (self.image_to_text + self.text_to_image)
            + weights.reconstruction * (self.image_reconstruction + self.text_reconstruction)
            + weights.bank_contrastive * (self.bank_image_to_text + self.bank_text_to_image)
        )

    def stacked(self) -> Tensor:
        """The six terms, detached, in the order of the fields."""
        return torch.stack([getattr(self, field.name).detach() for field in fields(self)])


def loss_terms(
    embeddings: Embeddings, scale: float = 10.0, gather: Callable[[Tensor], Tensor] | None = None, rank: int = 0
) -> LossTerms:
    """The six terms for the pairs of one process.

    The mean over processes of each term is that term of the whole batch, so gradients that are averaged over processes
    (as DDP does) are those of the whole batch.

    Args:
        embeddings: of this process's B pairs, each (B, E).
        scale: what cosines are multiplied by.
        gather: from this process's (B, E) to the (world * B, E) of all processes in the order of their ranks, with
            gradient (see `distributed.gather`); None in a single process. Every process must hold equally many pairs.
        rank: of this process.
    """
    everyone = gather or (lambda mine: mine)
    direct = _contrast(embeddings.image, embeddings.text, scale, everyone, rank)
    bank = _contrast(embeddings.image_from_bank, embeddings.text_from_bank, scale, everyone, rank)
    return LossTerms(
        *direct,
        F.mse_loss(embeddings.image_from_bank, embeddings.image),
        F.mse_loss(embeddings.text_from_bank, embeddings.text),
        *bank,
    )


def _contrast(image: Tensor, text: Tensor, scale: float, gather: Callable, rank: int) -> tuple[Tensor, Tensor]:
    """Cross entropy of this process's images against all texts, and of its texts against all images."""
    diagonal = torch.arange(len(image), device=image.device) + rank * len(image)
    return (
        F.cross_entropy(scale * cosines(image, gather(text)), diagonal),
        F.cross_entropy(scale * cosines(text, gather(image)), diagonal),
    )
