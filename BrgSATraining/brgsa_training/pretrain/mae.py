"""A masked autoencoder that warms up the image encoder before it meets captions.

Three quarters of the patches are hidden; the encoder sees the rest, and a small decoder has to paint what is missing
(He et al., arXiv 2111.06377). The paper starts from a masked autoencoder of images and texts together, whose training
is not public; this one sees images only. The result has the released layout and is what `start.image` reads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brgsa.model import Block, VisionTransformer3D, sine_position_table


@dataclass
class MaskConfig:
    """Share of the patches that is hidden, and the size of the decoder."""

    share: float = 0.75
    decoder_width: int = 192
    decoder_depth: int = 2
    decoder_heads: int = 6


class MaskedAutoencoder(nn.Module):
    """The image encoder with a decoder that paints hidden patches. P patches of V voxels; width W, of the decoder D."""

    def __init__(self, vision: VisionTransformer3D, config: MaskConfig):
        super().__init__()
        width, decoder = vision.position.shape[1], config.decoder_width
        voxels = vision.patch_embedding.in_features
        self.vision, self.share = vision, config.share
        self.to_decoder = nn.Linear(width, decoder)
        self.hidden_token = nn.Parameter(torch.zeros(1, 1, decoder))
        blocks = (Block(decoder, config.decoder_heads, 4 * decoder) for _ in range(config.decoder_depth))
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(decoder), nn.Linear(decoder, voxels))
        nn.init.normal_(self.hidden_token, std=0.02)

    def forward(self, volume: Tensor, order: Tensor) -> Tensor:
        """Mean squared error over hidden patches, each brought to zero mean and unit variance.

        Args:
            volume: (B, 1, X, Y, Z) as the encoder takes it.
            order: (B, P) a random order of the patches of every volume; its last `share` is hidden.
        """
        vision, grid = self.vision, self.vision.grid(volume.shape[2:])
        patches = vision.patches(volume)  # (B, P, V)
        count = patches.shape[1] - round(self.share * patches.shape[1])
        seen, hidden = order[:, :count], order[:, count:]
        position = vision.position_table(grid)
        tokens = vision.patch_embedding(_take(patches, seen)) + position[1:][seen]
        first = (vision.class_token + position[0]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        for block in vision.blocks:
            tokens = block(tokens)
        tokens = self.to_decoder(vision.norm(tokens))  # (B, 1 + seen, D)

        table = sine_position_table(grid, tokens.shape[2]).to(tokens)
        everywhere = self.hidden_token.to(tokens.dtype).expand(*order.shape, -1)
        everywhere = everywhere.scatter(1, seen[..., None].expand(-1, -1, tokens.shape[2]), tokens[:, 1:])
        painted = self.decoder(torch.cat([tokens[:, :1], everywhere], dim=1) + table)[:, 1:]
        wanted = F.layer_norm(_take(patches, hidden).float(), patches.shape[2:])
        return F.mse_loss(_take(painted, hidden).float(), wanted)


def _take(rows: Tensor, numbers: Tensor) -> Tensor:
    """Rows (B, P, V) at `numbers` (B, n) -> (B, n, V)."""
    return rows.gather(1, numbers[..., None].expand(-1, -1, rows.shape[2]))


def released_layout(vision: VisionTransformer3D) -> dict[str, Tensor]:
    """The encoder as {name: tensor} with the released names and shapes (docs/method.md b.2)."""
    renames = {"class_token": "cls_token", "position": "pos_embed"}
    flat = {}
    for name, tensor in vision.state_dict().items():
        name = renames.get(name, name).replace("patch_embedding", "patch_embed.proj").replace("attention", "attn")
        name = name.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2")
        if name == "pos_embed":
            tensor = tensor[None]
        if name == "patch_embed.proj.weight":
            tensor = tensor.view(len(tensor), 1, *vision.patch_size)
        flat[name] = tensor.detach().cpu().clone()
    return flat
