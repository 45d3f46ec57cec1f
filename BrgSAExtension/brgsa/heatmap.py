"""Where in a scan an abnormality's score comes from: heat maps on the scan's own voxels.

    heatmaps(scorer, scorer.prepare("ct.nii.gz"), [Abnormality("Emphysema")])

Method "rollout" is the released gradient-weighted attention rollout of S = cos(v, t) (docs/method.md i). Per block, A
is the head mean of softmax(q k'), G the head mean of dS/dA without its negative part, M = rownorm(A * G + I); the map
is row 0 of M_1 M_2 ... M_L. Method "similarity" is the cosine of every patch token with the prompt.

The released way holds A and dS/dA of every head and block, 20 GB at 4,097 tokens. Here the encoder runs as it does for
scoring and keeps two states per block; the backward pass goes through one block at a time and spells its attention out
for a few rows of one head at a time. These rows serve the gradient and the map at once, so the map costs no further
matrix products, and per block one matrix without heads is kept.

Shapes: N tokens (the class token first), H heads, D size of a head, W = H * D, (X', Y', Z') patches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brgsa.abnormalities import Abnormality
from brgsa.device import out_of_memory
from brgsa.errors import UsageError
from brgsa.model import Attention, Block, BrgSAModel, VisionTransformer3D, cosines
from brgsa.preprocess import ModelGrid, grid_to_ct, to_input
from brgsa.prompts import prompt_sets
from brgsa.scoring import PreparedScan, Progress, Scorer, silent

METHODS = ("rollout", "similarity")

# Rows of one head's attention that are in memory at a time: few enough for a processor's cache, enough for a GPU.
_ROWS = {"cpu": 192, "gpu": 2048}
_EPSILON = 1e-6  # of the released code


@dataclass(frozen=True)
class HeatMap:
    """A heat map of one abnormality in one scan. It shows the model's attention; it is no segmentation.

    Attributes:
        name: the abnormality.
        method: "rollout" or "similarity".
        patches: (X', Y', Z') float32 weight of every patch: shares of the whole (rollout) or cosines (similarity).
        volume: float32 on the voxels of the CTVolume, (X, Y, Z), its maximum 1; 0 where the model saw nothing.
        maximum: voxel index of the largest value.
        maximum_lps: its position, LPS mm.
    """

    name: str
    method: str
    patches: np.ndarray
    volume: np.ndarray
    maximum: tuple[int, int, int]
    maximum_lps: tuple[float, float, float]


def heatmaps(
    scorer: Scorer,
    scan: PreparedScan,
    abnormalities: Sequence[Abnormality],
    method: str = "rollout",
    on_progress: Progress = silent,
) -> Iterator[HeatMap]:
    """Make the heat map of each abnormality, one after the other; they share one pass through the encoder.

    Computed in fp32 whatever the precision of the scores. Several prompts of one abnormality are averaged as unit
    vectors, as for its score.

    Args:
        scan: from `scorer.prepare`.
        on_progress: what it raises ends the work.

    Raises:
        UsageError: unknown method.
        OutOfMemoryError: it does not fit.
    """
    if method not in METHODS:
        raise UsageError(f"unknown heat map method {method!r}. Choose {' or '.join(METHODS)}.")
    if not abnormalities:
        return
    make = _rollouts if method == "rollout" else _similarities
    texts = [_text(scorer, abnormality) for abnormality in abnormalities]
    volume = torch.from_numpy(to_input(scan.hu, scorer.weights.plan)).to(scorer.device)[None]
    with out_of_memory(scorer.device):
        maps = make(scorer.model, volume, texts, on_progress)
        for abnormality, patches in zip(abnormalities, maps, strict=True):
            yield on_scan(abnormality.name, method, patches, scan)


def attention_rollout(
    model: BrgSAModel, volume: Tensor, texts: Sequence[Tensor], on_progress: Progress = silent
) -> Iterator[Tensor]:
    """Gradient-weighted attention rollout of cos(v, t) for each text embedding.

    Args:
        volume: model input (1, 1, X, Y, Z), float32.
        texts: t, each (E,).

    Yields:
        Patch weights (X', Y', Z') that sum to 1 (to less where all are near 1e-6).
    """
    encoder, share = model.vision, 1 / (1 + len(texts))
    grid = encoder.grid(volume.shape[2:])
    states = _encode(encoder, volume, lambda part: on_progress(share * part, "encoding the scan"))
    for number, text in enumerate(texts, start=1):
        gradient = _score_gradient(model, states.last, text)

        def report(part: float, number: int = number) -> None:
            on_progress(share * (number + part), "following the attention back")

        row = _first_row_of_product(_attention_weights(encoder, states, gradient, report))[1:]
        yield (row / (row.sum() + _EPSILON)).view(grid)


def patch_similarity(model: BrgSAModel, volume: Tensor, texts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Cosine of every patch's embedding with each text embedding, (X', Y', Z')."""
    with torch.no_grad():
        patches = model.embed_patches(volume)[0]
    for text in texts:
        yield cosines(patches, text[None]).view(model.vision.grid(volume.shape[2:]))


def upsample(patches: Tensor, shape: Sequence[int]) -> Tensor:
    """Carry patch weights (X', Y', Z') to the voxels of the model's grid (X, Y, Z), trilinearly."""
    return F.interpolate(patches[None, None], size=tuple(shape), mode="trilinear", align_corners=False)[0, 0]


# --------------------------------------------------------------------------------------------------------- the rollout


@dataclass(frozen=True)
class _States:
    """What the way back needs: each block's input and what its heads gave, both (N, W); the last output (1, W)."""

    inputs: list[Tensor]
    attended: list[Tensor]
    last: Tensor


def _encode(encoder: VisionTransformer3D, volume: Tensor, report: Callable[[float], None]) -> _States:
    """Run the encoder and keep the states; of the last block, what belongs to the class token."""
    inputs, attended = [], []
    with torch.no_grad():
        x = encoder.embed(volume)
        for done, block in enumerate(encoder.blocks, start=1):
            inputs.append(x[0])
            hook = block.attention.proj.register_forward_pre_hook(lambda _, given: attended.append(given[0][0]))
            try:
                x = block(x, rows=1 if done == len(encoder.blocks) else None)
            finally:
                hook.remove()
            report(done / len(encoder.blocks))
    return _States(inputs, attended, x[0])


def _score_gradient(model: BrgSAModel, last: Tensor, text: Tensor) -> Tensor:
    """dS/dx of the class token after the last block, (1, W)."""
    with torch.enable_grad():
        x = last[:1].clone().requires_grad_()
        score = cosines(model.vision_projection(model.vision.norm(x)), text[None])
        return torch.autograd.grad(score.sum(), x)[0]


@torch.no_grad()
def _attention_weights(
    encoder: VisionTransformer3D, states: _States, gradient: Tensor, report: Callable[[float], None]
) -> list[Tensor]:
    """Head mean of A times head mean of dS/dA without its negative part, per block in layer order.

    What plays no part is left out. The score takes only the class token of the last block, so only row 0 has a
    gradient there; only row 0 of the first block enters the first row of the product, so only the gradient of the
    class token has to reach it. The result is (1, N) for the first and the last block, (N, N) for the others.
    """
    weights: list[Tensor] = []
    for layer in reversed(range(len(encoder.blocks))):
        block, x, attended = encoder.blocks[layer], states.inputs[layer], states.attended[layer][: len(gradient)]
        gradient = gradient + _through_mlp(block, x[: len(gradient)] + block.attention.proj(attended), gradient)
        rows, earlier = _through_attention(block, x, attended, gradient, tokens=layer if layer < 2 else len(x))
        weights.append(rows)
        shared = min(len(earlier), len(gradient))
        earlier[:shared] += gradient[:shared]  # past the attention, along the residual
        gradient = earlier
        report(len(weights) / (len(encoder.blocks) + 1))
    return weights[::-1]


def _through_mlp(block: Block, y: Tensor, gradient: Tensor) -> Tensor:
    """Carry a gradient (n, W) back through the second half of a block without its residual."""
    narrow, activation, widen = block.mlp
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        hidden = activation(narrow(block.norm2(y)))
        return torch.autograd.grad(hidden, y, gradient @ widen.weight)[0]


def _through_attention(
    block: Block, x: Tensor, attended: Tensor, gradient: Tensor, tokens: int
) -> tuple[Tensor, Tensor]:
    """Carry a gradient of the first n tokens (n, W) back through the first half of a block without its residual.

    Args:
        x: the block's input (N, W).
        attended: what the heads gave the first n tokens, (n, W).

    Returns:
        The rollout's weights of the n rows (n, N), and dS/dx of the first `tokens` tokens (tokens, W).
    """
    attention: Attention = block.attention
    with torch.enable_grad():
        kept = x[:tokens].detach().requires_grad_()
        qkv_kept = attention.qkv(block.norm1(kept))
    qkv = qkv_kept.detach() if tokens == len(x) else attention.qkv(block.norm1(x))
    q, k, v = (part.contiguous() for part in qkv.view(len(x), 3, attention.heads, -1).permute(1, 2, 0, 3))
    out = gradient @ attention.proj.weight
    turn = (out * attended).view(len(out), attention.heads, -1).sum(-1).T  # (H, n): rowsum(A * dS/dA)
    out = out.view(len(out), attention.heads, -1).transpose(0, 1).contiguous()
    dqkv = torch.zeros(3, attention.heads, tokens, q.shape[-1], dtype=q.dtype, device=q.device)
    weights = _attention_backward(q, k, v, out, turn, dqkv)
    return weights, torch.autograd.grad(qkv_kept, kept, dqkv.permute(2, 0, 1, 3).reshape(qkv_kept.shape))[0]


def _attention_backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, turn: Tensor, dqkv: Tensor) -> Tensor:
    """The gradient of softmax(q k' / sqrt(D)) v, and the weights of the rollout, a few rows of one head at a time.

    Args:
        q, k, v: (H, N, D).
        out: gradient of the attention's output for its first n rows, (H, n, D).
        turn: rowsum(A * dS/dA) of these rows, (H, n); it equals the product of the output and its gradient.
        dqkv: (3, H, T, D) of zeros, filled with the gradients of the first T tokens' q, k and v.

    Returns:
        mean_h(A) * max(mean_h(dS/dA), 0), (n, N).
    """
    (H, n, D), N, T = out.shape, k.shape[1], dqkv.shape[2]
    q = q * D**-0.5
    result = torch.zeros(n, N, dtype=q.dtype, device=q.device)
    size = min(n, _ROWS["cpu" if q.device.type == "cpu" else "gpu"])
    buffers = torch.empty(4, size, N, dtype=q.dtype, device=q.device)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        scores, attention, gradient, mean_gradient = buffers[:, : rows.stop - start]
        mean_attention = result[rows]
        mean_gradient.copy_(turn[:, rows].sum(0)[:, None].expand_as(mean_gradient))
        for head in range(H):
            torch.mm(q[head, rows], k[head].T, out=scores)
            torch.softmax(scores, dim=-1, out=attention)
            # dS/dA - rowsum(A * dS/dA), which times A is the gradient before the softmax
            torch.addmm(turn[head, rows, None], out[head, rows], v[head].T, beta=-1, out=gradient)
            mean_attention += attention
            mean_gradient += gradient
            if T == 0:
                continue
            dq, dk, dv = dqkv[:, head]
            dv.addmm_(attention[:, :T].T, out[head, rows])
            gradient *= attention
            dk.addmm_(gradient[:, :T].T, q[head, rows])
            if start < T:
                dq[rows] = torch.mm(gradient[: T - start], k[head]) * D**-0.5
        mean_attention *= mean_gradient.clamp_(min=0) / H**2
    return result


def _first_row_of_product(weights: list[Tensor]) -> Tensor:
    """Row 0 of M_1 M_2 ... M_L with M = rownorm(weights + I), as a chain of vector-matrix products, (N,)."""
    row = torch.zeros_like(weights[0][0])
    row[0] = 1
    for layer in weights:
        sums = torch.full_like(row, 1 + _EPSILON)
        sums[: len(layer)] += layer.sum(-1)  # the rows that were left out have no weights, there M is I
        row = row / sums
        row = row + row[: len(layer)] @ layer
    return row


# ----------------------------------------------------------------------------------------------------- onto the scan


def _rollouts(model: BrgSAModel, volume: Tensor, texts: list[Tensor], on_progress: Progress) -> Iterator[Tensor]:
    return attention_rollout(model, volume, texts, on_progress)


def _similarities(model: BrgSAModel, volume: Tensor, texts: list[Tensor], on_progress: Progress) -> Iterator[Tensor]:
    on_progress(0.1, "encoding the scan")
    return patch_similarity(model, volume, texts)


def _text(scorer: Scorer, abnormality: Abnormality) -> Tensor:
    """The mean of the abnormality's prompts as unit vectors, (E,)."""
    vectors = torch.from_numpy(scorer.embed_texts(prompt_sets(abnormality, "single")[0]))
    return F.normalize(vectors, dim=-1).mean(0).to(scorer.device)


def on_scan(name: str, method: str, patches: Tensor, scan: PreparedScan) -> HeatMap:
    """Carry patch weights (X', Y', Z') to the scan. Cosines are stretched so that the lowest becomes 0."""
    shown = patches.float().cpu()
    if method == "similarity":
        shown = shown - shown.min()
    volume = to_scan(shown, scan.grid)
    slowest_first = volume.T  # contiguous, so that nothing is copied
    maximum = tuple(int(i) for i in np.unravel_index(int(slowest_first.argmax()), slowest_first.shape)[::-1])
    position = scan.volume.affine[:3] @ [*maximum, 1]
    return HeatMap(name, method, patches.float().cpu().numpy(), volume, maximum, tuple(float(p) for p in position))


def to_scan(patches: Tensor, grid: ModelGrid) -> np.ndarray:
    """Patch weights (X', Y', Z') as a map on the scan's voxels, float32 (X, Y, Z), its maximum 1 (or all 0)."""
    volume = grid_to_ct(upsample(patches, grid.shape).numpy(), grid)
    highest = volume.max()
    if highest > 0:
        volume /= highest
    return volume
