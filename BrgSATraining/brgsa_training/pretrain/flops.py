"""Arithmetic of a training step, and what share of the processor's peak it reaches.

Two operations per multiply-add; attention counts its two matrix products; norms and activations are left out. The
backward pass counts twice the forward pass; what is computed again to save memory does not count.
"""

import math

from brgsa.model import BrgSAConfig

# Dense bf16 peaks in 1e12 operations per second, from the makers' data sheets.
PEAKS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "H20": 148.0, "A100": 312.0, "L40S": 362.0, "A40": 149.7}


def image_flops(config: BrgSAConfig, shape: tuple[int, ...]) -> float:
    """Operations of one forward pass of the image encoder for a volume of `shape` voxels."""
    patches = math.prod(side // patch for side, patch in zip(shape, config.patch_size, strict=True))
    width, tokens = config.vision_width, patches + 1
    block = 2 * tokens * (4 * width**2 + 2 * width * config.vision_mlp_size) + 4 * tokens**2 * width
    return config.vision_depth * block + 2 * patches * math.prod(config.patch_size) * width


def text_flops(config: BrgSAConfig, tokens: int) -> float:
    """Operations of one forward pass of the text encoder for a caption of `tokens` word pieces."""
    text = config.text
    width = text["hidden_size"]
    block = 2 * tokens * (4 * width**2 + 2 * width * text["intermediate_size"]) + 4 * tokens**2 * width
    return text["num_hidden_layers"] * block


def step_flops(config: BrgSAConfig, shape: tuple[int, ...], tokens: int) -> float:
    """Operations of forward and backward pass for one pair."""
    return 3 * (image_flops(config, shape) + text_flops(config, tokens))


def peak_flops(device_name: str) -> float | None:
    """Peak bf16 operations per second of an accelerator, None for one that is not in the table."""
    return next((peak * 1e12 for name, peak in PEAKS.items() if name in device_name), None)
