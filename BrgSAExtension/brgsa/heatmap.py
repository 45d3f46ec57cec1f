"""Where in a scan an abnormality's score comes from: heat maps on the scan's own voxels.

    heatmaps(scorer, scorer.prepare("ct.nii.gz"), [Abnormality("Emphysema")])

Method "rollout" is the released gradient-weighted attention rollout of S = cos(v, t) (docs/method.md i). Per block, A
is the head mean of softmax(q k'), G the head mean of dS/dA without its negative part, M = rownorm(A * G + I); the map
is row 0 of M_1 M_2 ... M_L. Method "similarity" is the cosine of every patch token with the prompt.

The released way holds A and dS/dA of every head and block, 20 GB at 4,097 tokens. Here the way forward keeps a few
states per block, the logarithms of the softmax's sums among them. With these the way back spells the attention out for
one tile of rows and columns at a time, small enough for the cache of a processor. The tiles serve the gradient and the
map at once, so the map costs no further matrix products, and per block one matrix without heads is kept.

Shapes: N tokens (the class token first), H heads, D size of a head, W = H * D, (X', Y', Z') patches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brgsa.abnormalities import Abnormality
from brgsa.device import computing, out_of_memory
from brgsa.errors import UsageError
from brgsa.model import Attention, Block, BrgSAModel, VisionTransformer3D, cosines
from brgsa.preprocess import ModelGrid, grid_to_ct, to_input
from brgsa.prompts import prompt_sets
from brgsa.scoring import PreparedScan, Progress, Scorer, silent

METHODS = ("rollout", "similarity")

# Side of the tiles of the attention of all heads: small enough for a processor's cache, large enough for a GPU.
_TILE = {"cpu": 256, "gpu": 1024}
_MLP_ROWS = 1024  # tokens that go through an MLP at a time, because its hidden state is four times as wide
_CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
_EPSILON = 1e-6  # of the released code


@dataclass(frozen=True)
class HeatMap:
    """A heat map of one abnormality in one scan. It shows the model's attention; it is not a segmentation.

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
    maps = make(scorer.model, volume, texts, on_progress)
    for abnormality in abnormalities:
        with out_of_memory(scorer.device), computing(scorer.device):
            heat = on_scan(abnormality.name, method, next(maps), scan)
        yield heat


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
    states, last = _encode(encoder, volume, lambda part: on_progress(share * part, "encoding the scan"))
    for number, text in enumerate(texts, start=1):
        gradient = _score_gradient(model, last, text)

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
class _BlockStates:
    """What the way back needs of a block; n is N, but 1 in the last block, of which only the class token counts."""

    x: Tensor  # the input, (N, W)
    attended: Tensor  # what the heads gave, (n, W)
    log_sums: Tensor  # of the softmax: A = exp(q k' / sqrt(D) - log_sums), (H, n)
    y: Tensor  # between attention and MLP, (n, W)


@torch.no_grad()
def _encode(
    encoder: VisionTransformer3D, volume: Tensor, report: Callable[[float], None]
) -> tuple[list[_BlockStates], Tensor]:
    """Run the encoder; return the states of every block and the last output of the class token, (1, W)."""
    states: list[_BlockStates] = []
    x = encoder.embed(volume)[0]
    for done, block in enumerate(encoder.blocks, start=1):
        q, k, v = _heads(block.attention.qkv(block.norm1(x)), block.attention.heads)
        n = 1 if done == len(encoder.blocks) else len(x)
        attended, log_sums = _attend(q[:, :n], k, v)
        attended = attended.transpose(0, 1).reshape(n, -1)
        y = x[:n] + block.attention.proj(attended)
        states.append(_BlockStates(x, attended, log_sums, y))
        x = y + torch.cat([block.mlp(block.norm2(part)) for part in y.split(_MLP_ROWS)])
        report(done / len(encoder.blocks))
    return states, x


def _heads(qkv: Tensor, heads: int) -> Tensor:
    """Queries, keys and values of the heads, (N, 3 W) -> (3, H, N, D)."""
    return qkv.view(len(qkv), 3, heads, -1).permute(1, 2, 0, 3)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of (H, n, D) queries over (H, N, D), and the logarithms of its softmax's sums, (H, n).

    torch's public function hides the sums; its operator for processors gives them. Elsewhere they are computed.
    """
    if q.device.type == "cpu" and hasattr(torch.ops.aten, _CPU_ATTENTION):
        attended, log_sums = getattr(torch.ops.aten, _CPU_ATTENTION)(q[None], k[None], v[None])
        return attended[0], log_sums[0]
    sums = [(part @ k.mT * q.shape[-1] ** -0.5).logsumexp(-1) for part in q.split(_tile(q), dim=1)]
    return F.scaled_dot_product_attention(q[None], k[None], v[None])[0], torch.cat(sums, dim=1)


def _tile(q: Tensor) -> int:
    return _TILE["cpu" if q.device.type == "cpu" else "gpu"]


def _score_gradient(model: BrgSAModel, last: Tensor, text: Tensor) -> Tensor:
    """dS/dx of the class token after the last block, (1, W)."""
    with torch.enable_grad():
        x = last[:1].clone().requires_grad_()
        score = cosines(model.vision_projection(model.vision.norm(x)), text[None])
        return torch.autograd.grad(score.sum(), x)[0]


@torch.no_grad()
def _attention_weights(
    encoder: VisionTransformer3D, states: list[_BlockStates], gradient: Tensor, report: Callable[[float], None]
) -> list[Tensor]:
    """Head mean of A times head mean of dS/dA without its negative part, per block in layer order.

    What plays no part is left out. The score takes only the class token of the last block, so only row 0 has a
    gradient there; only row 0 of the first block enters the first row of the product, so only the gradient of the
    class token has to reach it. The result is (1, N) for the first and the last block, (N, N) for the others.
    """
    weights: list[Tensor] = []
    for layer in reversed(range(len(encoder.blocks))):
        block, kept = encoder.blocks[layer], states[layer]
        parts = zip(kept.y[: len(gradient)].split(_MLP_ROWS), gradient.split(_MLP_ROWS), strict=True)
        gradient = gradient + torch.cat([_through_mlp(block, y, part) for y, part in parts])
        rows, earlier = _through_attention(block, kept, gradient, tokens=layer if layer < 2 else len(kept.x))
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


def _through_attention(block: Block, kept: _BlockStates, gradient: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Carry a gradient of the first n tokens (n, W) back through the first half of a block without its residual.

    Returns:
        The rollout's weights of the n rows (n, N), and dS/dx of the first `tokens` tokens (tokens, W).
    """
    attention: Attention = block.attention
    n, N = len(gradient), len(kept.x)
    with torch.enable_grad():
        x = kept.x[:tokens].detach().requires_grad_()
        qkv_kept = attention.qkv(block.norm1(x))
    qkv = qkv_kept.detach() if tokens == N else attention.qkv(block.norm1(kept.x))
    q, k, v = _heads(qkv, attention.heads)
    out = gradient @ attention.proj.weight
    turn = (out * kept.attended[:n]).view(n, attention.heads, -1).sum(-1).T
    out = out.view(n, attention.heads, -1).transpose(0, 1)
    dqkv = torch.zeros(3, attention.heads, tokens, q.shape[-1], dtype=q.dtype, device=q.device)
    weights = _attention_backward(q[:, :n], k, v, kept.log_sums[:, :n], out, turn, dqkv)
    return weights, torch.autograd.grad(qkv_kept, x, dqkv.permute(2, 0, 1, 3).reshape(qkv_kept.shape))[0]


def _attention_backward(
    q: Tensor, k: Tensor, v: Tensor, log_sums: Tensor, out: Tensor, turn: Tensor, dqkv: Tensor
) -> Tensor:
    """The gradient of softmax(q k' / sqrt(D)) v, and the weights of the rollout, one tile at a time.

    Args:
        q: the first n queries, (H, n, D).
        k, v: (H, N, D).
        log_sums: of the softmax of these rows, (H, n).
        out: gradient of the attention's output, (H, n, D).
        turn: rowsum(A * dS/dA), (H, n); it equals the product of the output and its gradient.
        dqkv: (3, H, T, D) of zeros, filled with the gradients of the first T tokens' q, k and v.

    Returns:
        mean_h(A) * max(mean_h(dS/dA), 0), (n, N).
    """
    (H, n, D), N, T = q.shape, k.shape[1], dqkv.shape[2]
    dq, dk, dv = dqkv
    # One more column lets a product of matrices subtract what belongs to a row. Powers of 2 are quicker than of e.
    to_base_2 = math.log2(math.e)
    one = torch.ones_like(k[..., :1])
    asked = torch.cat([q * (to_base_2 * D**-0.5), -to_base_2 * log_sums[..., None]], dim=-1)
    wanted = torch.cat([out, -turn[..., None]], dim=-1)
    keys, values = (torch.cat([part, one], dim=-1).mT.contiguous() for part in (k, v))  # (H, D + 1, N)
    result = torch.empty(n, N, dtype=q.dtype, device=q.device)
    size = _tile(q)
    for top in range(0, n, size):
        rows = slice(top, top + size)
        for left in range(0, N, size):
            columns = slice(left, left + size)
            attention = torch.bmm(asked[:, rows], keys[..., columns]).exp2_()
            # dS/dA - rowsum(A * dS/dA), which times A is the gradient before the softmax
            gradient = torch.bmm(wanted[:, rows], values[..., columns])
            positive = (gradient.sum(0) + turn[:, rows].sum(0)[:, None]).clamp_(min=0)
            torch.mul(attention.sum(0), positive, out=result[rows, columns])
            if min(top, left) >= T:
                continue
            gradient *= attention
            if left < T:
                near = slice(left, min(left + size, T))
                dv[:, near].baddbmm_(attention[..., : T - left].mT, out[:, rows])
                dk[:, near].baddbmm_(gradient[..., : T - left].mT, q[:, rows], alpha=D**-0.5)
            if top < T:
                near = slice(top, min(top + size, n, T))
                dq[:, near].baddbmm_(gradient[:, : T - top], k[:, columns], alpha=D**-0.5)
    return result.div_(H**2)


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
