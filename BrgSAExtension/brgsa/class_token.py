"""The class token of the image encoder for a fourteenth less work: the last block computes nothing for the patches."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def class_token(vision: nn.Module, volume: Tensor) -> Tensor:
    """What `vision(volume)` of a `VisionTransformer3D` gives first, (B, 1, X, Y, Z) -> (B, W), but for rounding."""
    x = vision.run(vision.blocks[:-1], vision.embed(volume))
    last = vision.blocks[-1]
    token = checkpoint(_first_row, last, x, use_reentrant=False) if vision.checkpoint_blocks else _first_row(last, x)
    return vision.norm(token)[:, 0]


def _first_row(block: nn.Module, x: Tensor) -> Tensor:  # (B, N, W) -> (B, 1, W)
    """The first row of `block(x)`: only the class token asks, all tokens answer."""
    attention, normed = block.attention, block.norm1(x)
    B, N, W = x.shape
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(normed[:, :1], weight[:W], bias[:W]).view(B, 1, attention.heads, -1).transpose(1, 2)
    k, v = F.linear(normed, weight[W:], bias[W:]).view(B, N, 2, attention.heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, 1, W)
    y = x[:, :1] + attention.proj(attended)
    return y + block.mlp(block.norm2(y))
