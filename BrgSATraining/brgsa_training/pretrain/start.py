"""What a model starts from: the released layouts of pretrained encoders, or statistics of the data.

Reference for the layouts: docs/method.md b.2.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from brgsa.errors import SetupError, UsageError, first_line
from brgsa.model import BrgSAModel, VisionTransformer3D
from brgsa.weights.released import read_checkpoint, rename, state_of
from brgsa_training.data.pairs import Batch, PairDataset, to_model_input

log = logging.getLogger(__name__)


def load_image(model: BrgSAModel, path: str | os.PathLike) -> list[str]:
    """Load the image encoder of a masked autoencoder, {name: tensor} with names as in `img_encoder.model.`.

    A position table of another length is resized. Tensors of other names (a decoder) or shapes are left out, as in the
    released code, but here an encoder that is left incomplete is refused.

    Returns:
        Names of what was left out.

    Raises:
        SetupError: the file cannot be read, or does not hold all of the encoder.
    """
    state = state_of(read_checkpoint(path), path)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("vision.")}
    found, left_out = {}, []
    for key, tensor in state.items():
        name = rename(f"img_encoder.model.{key}")
        if name == "vision.position":
            tensor = resized_position_table(tensor.flatten(0, -2).float(), model.vision.position_grid)
        if name == "vision.patch_embedding.weight":
            tensor = tensor.flatten(1)
        if name in wanted and wanted[name].shape == tensor.shape:
            found[name] = tensor.float()
        else:
            left_out.append(key)
    if missing := [name for name in wanted if name not in found]:
        raise SetupError(
            f"{path} does not fit this image encoder: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''} missing or of another shape."
        )
    model.load_state_dict(found, strict=False)
    return left_out


def resized_position_table(table: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize a (1 + P, W) position table trilinearly to `grid`.

    Its own grid is guessed as the released code does: a cube if P is one, else the first factors d <= h in ascending
    order.
    """
    rows = table[1:].T.reshape(1, table.shape[1], *_guessed_grid(len(table) - 1))
    rows = F.interpolate(rows, size=tuple(grid), mode="trilinear", align_corners=False)
    return torch.cat([table[:1], rows[0].flatten(1).T])


def _guessed_grid(patches: int) -> tuple[int, int, int]:
    side = round(patches ** (1 / 3))
    if side**3 == patches:
        return side, side, side
    for d in range(1, patches + 1):
        if patches % d == 0:
            rest = patches // d
            for h in range(d, int(rest**0.5) + 1):
                if rest % h == 0:
                    return d, h, rest // h
    return 1, 1, patches


def load_text(model: BrgSAModel, folder: str | os.PathLike) -> None:
    """Load the text encoder from a Hugging Face folder of a BERT (model.safetensors or pytorch_model.bin).

    Raises:
        SetupError: the folder holds none, or one of other sizes.
    """
    folder = Path(folder)
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        state = load_file(safe) if safe.is_file() else state_of(read_checkpoint(pickled), pickled)
    except SafetensorError as error:
        raise SetupError(f"{safe} is damaged ({first_line(error)}). Copy it again.") from error
    wanted = model.text.bert.state_dict()
    found = {}
    for key, tensor in state.items():
        # older BERT files end in gamma and beta where newer ones have weight and bias
        name = key.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name in wanted:
            found[name] = tensor.float()
    missing = [name for name in wanted if name not in found]
    other = [name for name, tensor in found.items() if tensor.shape != wanted[name].shape]
    for problem, names in (("lacks", missing), ("has another size of", other)):
        if names:
            raise SetupError(
                f"{folder} {problem} {', '.join(names[:3])}. Set model.text to the sizes of its config.json."
            )
    model.text.bert.load_state_dict(found)


def text_vocabulary_size(folder: str | os.PathLike) -> int:
    """Rows of the word table of a Hugging Face folder.

    Raises:
        SetupError: no config.json, or none of a BERT.
    """
    path = Path(folder) / "config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["vocab_size"])
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror}). Give the folder of a BERT.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is no BERT configuration ({first_line(error)}).") from error


@torch.no_grad()
def spread_projections(model: BrgSAModel, pairs: PairDataset, count: int) -> None:
    """Bring both projections to zero mean and unit spread on `count` pairs, so that embeddings tell scans apart."""
    training = model.training
    model.eval()
    images, texts = [], []
    for batch, volume in _first_batches(pairs, count):
        images.append(model.embed_image(volume))
        texts.append(model.embed_text(batch.ids, batch.mask))
    model.train(training)
    for projection, embeddings in ((model.vision_projection, images), (model.text_projection, texts)):
        embeddings = torch.cat(embeddings)
        spread = embeddings.var(0).mean().sqrt()
        projection.weight /= spread
        projection.bias.copy_((projection.bias - embeddings.mean(0)) / spread)


@torch.no_grad()
def principal_patches(vision: VisionTransformer3D, pairs: PairDataset, count: int) -> None:
    """Start the patch embedding with the principal components of patches less their mean at each place, whitened.

    At random a linear map of a patch shows mostly how the body lies; so small things weigh as much from the first step.

    Args:
        count: volumes to take the components from; two or more per place are needed, hundreds are better.

    Raises:
        UsageError: patches have fewer voxels than the encoder is wide.
    """
    width, voxels = vision.patch_embedding.weight.shape
    if voxels < width:
        raise UsageError(f"start.principal needs patches of {width} voxels or more; these have {voxels}.")
    total, squares, seen = 0, 0, 0
    for _, volume in _first_batches(pairs, count):
        patches = vision.patches(volume)  # (B, P, voxels)
        total, seen = total + patches.sum(0), seen + len(patches)
        squares = squares + patches.flatten(0, 1).T @ patches.flatten(0, 1)
    covariance = (squares / seen - total.T @ total / seen**2) / len(total)
    values, vectors = torch.linalg.eigh(covariance.double())
    values, vectors = values[-width:].clamp_min(1e-6), vectors[:, -width:]
    vectors *= vectors.sum(0).sign()  # an eigenvector has no sign of its own
    vision.patch_embedding.weight.copy_((vectors / values.sqrt()).T)
    vision.patch_embedding.bias.zero_()


@torch.no_grad()
def centre_patches(vision: VisionTransformer3D, pairs: PairDataset, count: int) -> None:
    """Subtract the embedded mean patch of `count` volumes from the position table, so that tokens tell scans apart.

    Raises:
        UsageError: crops whose grid is not that of the position table.
    """
    if vision.grid(pairs.shape) != vision.position_grid:
        raise UsageError(
            f"a start from data needs crops of model.position_grid patches: {vision.grid(pairs.shape)} is not "
            f"{vision.position_grid}. Change model.position_grid, or set start.data_dependent to 0."
        )
    total = sum(vision.patches(volume).sum(0) for _, volume in _first_batches(pairs, count))  # (P, voxels of a patch)
    vision.position[1:] -= total / min(count, len(pairs)) @ vision.patch_embedding.weight.T


def _first_batches(pairs: PairDataset, count: int) -> Iterator[tuple[Batch, Tensor]]:
    """The first `count` pairs of epoch 0 and their volumes as the encoder takes them, 32 at a time."""
    keys = [(0, number) for number in range(min(count, len(pairs)))]
    for at in range(0, len(keys), 32):
        batch = pairs.collate([pairs[key] for key in keys[at : at + 32]])
        yield batch, to_model_input(batch.voxels, pairs.volumes.plan, pairs.slope, pairs.intercept)
