"""Time and memory of a heat map at full size, in forward passes of the encoder, and how near it is to the naive way.

    python Testing/benchmarks/bench_heatmap.py [--threads 1] [--texts 2]

The model has the released size and random weights, the input has 256 x 256 x 128 voxels (4,097 tokens), fp32. "Extra
memory" is how far the resident memory rises above what the process holds with the model and its input in memory. The
naive way keeps every head's attention and its gradient; it is compared where it fits, at 8 x 8 x 8 patches.
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from brgsa.heatmap import attention_rollout
from brgsa.model import BrgSAConfig, BrgSAModel, cosines


def resident():
    """Resident memory of this process in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e9


class Peak:
    """The highest resident memory inside a `with` block, looked at every 5 ms."""

    def __enter__(self):
        self.start = self.highest = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.005):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
        self.extra = self.highest - self.start


def naive_rollout(model, volume, text):
    """The rollout as the released code computes it: every head's attention and its gradient in memory."""
    encoder, kept = model.vision, []
    with torch.enable_grad():
        x = encoder.embed(volume).requires_grad_()
        for block in encoder.blocks:
            y = block.norm1(x)
            B, N, W = y.shape
            heads = block.attention.heads
            q, k, v = block.attention.qkv(y).view(B, N, 3, heads, W // heads).permute(2, 0, 3, 1, 4)
            attention = (q @ k.transpose(-2, -1) * (W // heads) ** -0.5).softmax(-1)
            attention.retain_grad()
            kept.append(attention)
            x = x + block.attention.proj((attention @ v).transpose(1, 2).reshape(B, N, W))
            x = x + block.mlp(block.norm2(x))
        cosines(model.vision_projection(encoder.norm(x)[:, 0]), text[None]).sum().backward()
    product = torch.eye(kept[0].shape[-1])
    for attention in kept:
        layer = attention.detach()[0].mean(0) * attention.grad[0].mean(0).clamp(min=0) + torch.eye(len(product))
        product = product @ (layer / (layer.sum(-1, keepdim=True) + 1e-6))
    row = product[0, 1:]
    return (row / (row.sum() + 1e-6)).view(encoder.grid(volume.shape[2:]))


def timed(function):
    """Wall and processor seconds of a call; where other programs run, the second is the steadier measure."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--texts", type=int, default=2, help="abnormalities of one scan (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="forward passes that are timed (default %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    small_text = {"num_hidden_layers": 1, "vocab_size": 64}
    model = BrgSAModel(BrgSAConfig(trained=False, text=small_text)).eval().requires_grad_(False)
    texts = list(F.normalize(torch.randn(options.texts, 768), dim=-1))

    small = torch.randn(1, 1, 128, 128, 64)
    expected = naive_rollout(model, small, texts[0])
    ours = next(attention_rollout(model, small, texts[:1]))
    apart = float((ours / ours.max() - expected / expected.max()).abs().max())

    volume = torch.randn(1, 1, 256, 256, 128)
    with torch.inference_mode():
        model.embed_image(volume)
        with Peak() as scoring:
            runs = [timed(lambda: model.embed_image(volume)) for _ in range(options.repeats)]
    forward = [statistics.median(column) for column in zip(*runs, strict=True)]
    with Peak() as memory:
        maps = attention_rollout(model, volume, texts)
        seconds = [timed(lambda: next(maps)) for _ in texts]

    print(f"\n{options.threads} threads, torch {torch.__version__}, fp32\n")
    print("| what | measured | goal |\n|---|---|---|")
    print(f"| forward pass | {forward[0]:.1f} s, {forward[1]:.1f} processor s, {scoring.extra:.2f} GB extra | |")
    for number, (wall, processor) in enumerate(seconds):
        what, goal = ("another abnormality", "") if number else ("first abnormality", "under 3.5 forward passes")
        passes = f"{wall / forward[0]:.2f} forward passes ({processor / forward[1]:.2f} by processor seconds)"
        print(f"| {what} | {wall:.1f} s, {passes} | {goal} |")
    print(f"| extra memory | {memory.extra:.2f} GB | under 1.5 GB |")
    print(f"| largest difference from the naive way, 8 x 8 x 8 patches, maximum 1 | {apart:.1e} | 1e-4 |")


if __name__ == "__main__":
    main()
