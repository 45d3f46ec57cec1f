"""How much memory training takes: an estimate from sizes, and a measurement of what autograd keeps.

The estimate counts what a block keeps for its backward pass with fused attention: the inputs of its two norms in
float32, and in the precision of the matrix products the outputs of the norms, q, k and v, the attention's output, and
the MLP's hidden layer before and after its activation.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from brgsa.model import BrgSAConfig


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    state: int  # parameters, gradients and both moments of Adam, float32
    per_pair: int  # activations of one volume and its caption
    activations: int  # of all pairs that are held at a time

    @property
    def total(self) -> int:
        return self.state + self.activations


def block_bytes(tokens: int, width: int, mlp_size: int, element: int) -> int:
    """What one transformer block keeps; `element` is the bytes of a number in its matrix products."""
    kept = 6 * width + 2 * mlp_size
    return tokens * (2 * width * 4 + kept * element)


def image_bytes(config: BrgSAConfig, shape: tuple[int, ...], element: int = 4, checkpoint_blocks: bool = False) -> int:
    """Activations that the image encoder keeps for one volume of `shape` voxels.

    With `checkpoint_blocks` every block keeps its input only, and one block at a time is whole.
    """
    tokens = 1 + math.prod(side // patch for side, patch in zip(shape, config.patch_size, strict=True))
    block = block_bytes(tokens, config.vision_width, config.vision_mlp_size, element)
    inputs = tokens * config.vision_width * 4  # of a block, or of the last norm
    if checkpoint_blocks:
        return (config.vision_depth + 1) * inputs + block
    return config.vision_depth * block + inputs


def text_bytes(config: BrgSAConfig, tokens: int, element: int = 4) -> int:
    """Activations that the text encoder keeps for one caption of `tokens` word pieces."""
    text = config.text
    return text["num_hidden_layers"] * block_bytes(tokens, text["hidden_size"], text["intermediate_size"], element)


def estimate(
    config: BrgSAConfig, parameters: int, shape: tuple[int, ...], pairs: int, element: int, checkpoint_blocks: bool
) -> MemoryEstimate:
    """Memory of a step that holds `pairs` pairs at a time on one device."""
    volume = math.prod(shape)
    per_pair = image_bytes(config, shape, element, checkpoint_blocks) + text_bytes(config, config.text_length, element)
    per_pair += volume * (4 + element)  # the volume itself, scaled, and its patches
    return MemoryEstimate(16 * parameters, per_pair, pairs * per_pair)


class SavedTensors:
    """Counts the bytes that autograd keeps for the backward pass of what runs inside; every storage counts once.

    >>> with SavedTensors(exclude=model) as saved:          # doctest: +SKIP
    ...     model.embed_image(volume)
    >>> saved.bytes                                         # doctest: +SKIP
    """

    def __init__(self, exclude: nn.Module | None = None):
        self._storages = {tensor.untyped_storage().data_ptr() for tensor in exclude.parameters()} if exclude else set()
        self._kept: list[torch.Tensor] = []
        self.bytes = 0

    def __enter__(self) -> "SavedTensors":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self._kept.append(tensor)  # so that its address is not given to another storage meanwhile
            self.bytes += storage.nbytes()
        return tensor
