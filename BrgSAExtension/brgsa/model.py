"""The BrgSA model: chest CT and sentences in one embedding space, bridged by a bank of knowledge (arXiv 2501.03565).

    volume  -> VisionTransformer3D -> v ----------> cos(v, t)      direct score
                                      |
                                      CrossModalKnowledgeBank
                                      |
                                      v_hat ------> cos(v_hat, t)  bank score
    sentence -> TextEncoder --------> t
                                                    final score = mean of the two

Shapes: B volumes, (X, Y, Z) voxels growing Left, Posterior, Superior, (Gx, Gy, Gz) patches along them, P = Gx*Gy*Gz,
W width of an encoder, E embedding size, H heads, K rows of the bank, S sentences, T word pieces.
The numbers follow the released code (docs/method.md); where it is only quaint, this file is plain.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel

from brgsa.class_token import class_token


class BrgSAConfig(PretrainedConfig):
    """Sizes of the model. The defaults are those of the released weights (202 million parameters).

    Args:
        embedding_size: E, length of the embeddings of both modalities and of a bank row.
        patch_size: voxels of one patch along X, Y, Z.
        position_grid: patches along X, Y, Z that the position table was made for; other grids resize it.
        vision_width, vision_depth, vision_heads, vision_mlp_size: the vision transformer.
        text: fields of `transformers.BertConfig`; empty for BERT base.
        text_layers: how many of the last BERT layers are summed.
        text_length: word pieces a sentence is cut to, and the constant that its sum is divided by.
        bank_size: K.
        trained: False marks random weights, so that their scores can be marked too.
    """

    model_type = "brgsa"

    def __init__(
        self,
        embedding_size: int = 768,
        patch_size: tuple[int, int, int] = (16, 16, 8),
        position_grid: tuple[int, int, int] = (14, 14, 14),
        vision_width: int = 768,
        vision_depth: int = 12,
        vision_heads: int = 12,
        vision_mlp_size: int = 3072,
        text: dict | None = None,
        text_layers: int = 4,
        text_length: int = 97,
        bank_size: int = 2048,
        trained: bool = True,
        **kwargs,
    ):
        self.embedding_size = embedding_size
        self.patch_size = tuple(patch_size)
        self.position_grid = tuple(position_grid)
        self.vision_width = vision_width
        self.vision_depth = vision_depth
        self.vision_heads = vision_heads
        self.vision_mlp_size = vision_mlp_size
        self.text = text or {}
        self.text_layers = text_layers
        self.text_length = text_length
        self.bank_size = bank_size
        self.trained = trained
        super().__init__(**kwargs)


# --------------------------------------------------------------------------------------------------------------- vision


class Attention(nn.Module):
    """Multi-head self-attention; the scale is 1/sqrt(W/H)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, W) -> (B, N, W)
        B, N, W = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, W // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, N, W/H)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, N, W))


class Block(nn.Module):
    """A pre-norm transformer block. Its norms use eps 1e-6, unlike the encoder's last norm (docs/method.md a.1)."""

    def __init__(self, width: int, heads: int, mlp_size: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_size), nn.GELU(), nn.Linear(mlp_size, width))

    def forward(self, x: Tensor) -> Tensor:  # (B, N, W) -> (B, N, W)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer3D(nn.Module):
    """A ViT over 3D patches with an absolute position table that is resized to the grid of the input.

    Input (B, 1, X, Y, Z), every side a multiple of the patch; output class token (B, W) and patch tokens (B, P, W), the
    patches in row-major order of (Gx, Gy, Gz).
    """

    def __init__(self, config: BrgSAConfig):
        super().__init__()
        W = config.vision_width
        self.patch_size = tuple(config.patch_size)
        self.position_grid = tuple(config.position_grid)
        self.patch_embedding = nn.Linear(math.prod(self.patch_size), W)
        self.class_token = nn.Parameter(torch.zeros(1, 1, W))
        # The released table is read under no_grad on every forward, so it never trains.
        self.position = nn.Parameter(torch.zeros(1 + math.prod(self.position_grid), W), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(W, config.vision_heads, config.vision_mlp_size) for _ in range(config.vision_depth)
        )
        self.norm = nn.LayerNorm(W, eps=1e-5)
        self.checkpoint_blocks = False

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Patches along X, Y, Z of a volume of `shape` voxels.

        Raises:
            ValueError: a side is not a multiple of the patch; the border voxels would be lost silently.
        """
        if any(side % patch or not side for side, patch in zip(shape, self.patch_size, strict=True)):
            raise ValueError(f"a volume of {tuple(shape)} voxels is not a multiple of the patch {self.patch_size}")
        return tuple(side // patch for side, patch in zip(shape, self.patch_size, strict=True))

    def patches(self, volume: Tensor) -> Tensor:
        """Cut (B, 1, X, Y, Z) into (B, P, voxels of a patch): a strided convolution written as one matrix product."""
        (Gx, Gy, Gz), (px, py, pz) = self.grid(volume.shape[2:]), self.patch_size
        x = volume.reshape(-1, Gx, px, Gy, py, Gz, pz)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, Gx * Gy * Gz, px * py * pz)

    def position_table(self, grid: tuple[int, int, int]) -> Tensor:
        """The position table for `grid`, (1 + P, W): the patch rows resized trilinearly, the class row as it is."""
        if tuple(grid) == self.position_grid:
            return self.position
        rows = self.position[1:].view(*self.position_grid, -1).permute(3, 0, 1, 2)[None]  # (1, W, Gx, Gy, Gz)
        rows = F.interpolate(rows, size=grid, mode="trilinear", align_corners=False)
        return torch.cat([self.position[:1], rows[0].flatten(1).T])

    def embed(self, volume: Tensor) -> Tensor:
        """Tokens before the first block: class token and patches with their positions, (B, 1 + P, W)."""
        x = self.patch_embedding(self.patches(volume))
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.position_table(self.grid(volume.shape[2:]))

    def run(self, blocks: Iterable[Block], x: Tensor) -> Tensor:
        """Run blocks one after the other, (B, N, W) -> (B, N, W)."""
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoint_blocks else block(x)
        return x

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token (B, W) and the patch tokens (B, P, W)."""
        x = self.norm(self.run(self.blocks, self.embed(volume)))
        return x[:, 0], x[:, 1:]


def sine_position_table(grid: tuple[int, int, int], width: int) -> Tensor:
    """Three-axis sine and cosine table, (1 + P, width), zero in the class row.

    Each axis gets width/3 channels, [sines | cosines] of positions 0..1 (a fraction of the axis, not an index) at
    frequencies 10000^(-2i/channels); the slowest axis comes first (docs/method.md a.1).
    """
    channels = width // 3
    frequencies = 10000.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
    positions = torch.meshgrid(*(torch.linspace(0, 1, side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = torch.stack(positions).flatten(1)[..., None] * frequencies  # (3, P, channels/2)
    rows = torch.cat([angles.sin(), angles.cos()], dim=-1).permute(1, 0, 2).flatten(1)  # (P, 3*channels)
    rows = F.pad(rows, (0, width - rows.shape[1]))
    return torch.cat([torch.zeros(1, width), rows.float()])


# ----------------------------------------------------------------------------------------------------------------- text


class TextEncoder(nn.Module):
    """BERT whose last layers are summed over layers and word pieces.

    s = 1/97 * sum over the last 4 layers and over [CLS]..[SEP] of the hidden states. The divisor is the padded length
    whatever the sentence's own length is, so sentences may be padded to the longest only (docs/method.md a.2).
    """

    def __init__(self, config: BrgSAConfig):
        super().__init__()
        self.layers = config.text_layers
        self.divisor = config.text_length
        # transformers would ask a hub for the code of an attention that the weights name
        self.bert = BertModel(BertConfig(**config.text, attn_implementation="sdpa"), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # (S, T), (S, T) -> (S, W)
        states = self.bert(input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
        summed = torch.stack(states[-self.layers :]).sum(0)  # (S, T, W)
        return (summed * attention_mask[..., None].to(summed.dtype)).sum(1) / self.divisor


# ----------------------------------------------------------------------------------------------------------------- bank


class CrossModalKnowledgeBank(nn.Module):
    """Rebuild an embedding of either modality from the rows of one shared matrix D: x_hat = softmax(x D^T) D."""

    def __init__(self, size: int, embedding_size: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(size, embedding_size))

    def weights(self, embedding: Tensor) -> Tensor:
        """How much each row is used, (B, E) -> (B, K). No temperature, and the embedding is not normalised."""
        return (embedding @ self.rows.T).softmax(dim=-1)

    def forward(self, embedding: Tensor) -> Tensor:  # (B, E) -> (B, E)
        return self.weights(embedding) @ self.rows


# ---------------------------------------------------------------------------------------------------------------- model


@dataclass
class Embeddings:
    """What training needs of a batch of pairs: both embeddings (B, E) and what the bank makes of them (B, E)."""

    image: Tensor
    text: Tensor
    image_from_bank: Tensor
    text_from_bank: Tensor


class BrgSAModel(PreTrainedModel):
    """Both encoders and the bank."""

    config_class = BrgSAConfig
    base_model_prefix = ""
    main_input_name = "volume"
    _supports_sdpa = True

    def __init__(self, config: BrgSAConfig):
        super().__init__(config)
        self.vision = VisionTransformer3D(config)
        self.vision_projection = nn.Linear(config.vision_width, config.embedding_size)
        self.text = TextEncoder(config)
        self.text_projection = nn.Linear(self.text.bert.config.hidden_size, config.embedding_size)
        self.bank = CrossModalKnowledgeBank(config.bank_size, config.embedding_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Start as the released code does before it loads pretrained encoders (docs/method.md a.1, a.3)."""
        if isinstance(module, VisionTransformer3D):
            with torch.no_grad():
                module.position.copy_(sine_position_table(module.position_grid, module.position.shape[1]))
            nn.init.normal_(module.class_token, std=0.02)
            # torch's own start of a convolution, which xavier has replaced when its linear twin was visited
            bound = 1 / math.sqrt(module.patch_embedding.in_features)
            nn.init.uniform_(module.patch_embedding.weight, -bound, bound)
            nn.init.uniform_(module.patch_embedding.bias, -bound, bound)
        elif isinstance(module, CrossModalKnowledgeBank):
            nn.init.orthogonal_(module.rows)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def embed_image(self, volume: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) normalised HU, see preprocess.to_input -> v, (B, E), not normalised."""
        return self.vision_projection(class_token(self.vision, volume))

    def embed_patches(self, volume: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) -> one embedding for each patch, (B, P, E), in the same space as v."""
        return self.vision_projection(self.vision(volume)[1])

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(S, T) word pieces of cleaned sentences -> t, (S, E), not normalised."""
        return self.text_projection(self.text(input_ids, attention_mask))

    def forward(self, volume: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Embeddings:
        image, text = self.embed_image(volume), self.embed_text(input_ids, attention_mask)
        return Embeddings(image, text, self.bank(image), self.bank(text))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of a (B, E) with every row of b (S, E), (B, S)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
