"""Time and memory of scoring at full size: brgsa beside the released path, in one run.

    python Testing/benchmarks/bench_scoring.py --repeats 5

The model has the released size (202 million parameters in the released file) and random weights; the scan is synthetic,
512 x 512 x 300 int16 `.nii.gz`, 18 abnormalities. The released path is written out here: float32, attention as a
softmax of a full matrix, the whole volume resampled by SimpleITK, prompts padded to 97 word pieces. Start-up (imports,
reading the weights) is not counted for either. The runs take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_preprocess
import numpy as np
import torch
import volumes

from brgsa.abnormalities import AbnormalityList
from brgsa.model import BrgSAConfig, BrgSAModel, cosines
from brgsa.preprocess import PreprocessingPlan
from brgsa.scoring import Scorer
from brgsa.weights.folder import save_weights

FIRST, SECOND = AbnormalityList.preset("ct-rate-18"), AbnormalityList.preset("ct-rate-lt-15")


def full_size_weights(folder):
    """A weights folder of the released size with random weights and a vocabulary of the prompts' own words."""
    words = sorted({w for rows in (FIRST, SECOND) for row in rows for w in f"there is no {row.name}".lower().split()})
    vocabulary = folder / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary.write_text("\n".join([*pieces, *(f"##{n}" for n in range(30522 - len(pieces)))]) + "\n")
    torch.manual_seed(0)
    model = BrgSAModel(BrgSAConfig(trained=False))
    return save_weights(folder / "full", model, vocabulary, PreprocessingPlan(), "random weights\n", "none\n")


def spelled_out_attention(module, x):
    """What scaled_dot_product_attention stands for, with the full matrix of every head in memory."""
    B, N, W = x.shape
    q, k, v = module.qkv(x).view(B, N, 3, module.heads, W // module.heads).permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) * (W // module.heads) ** -0.5).softmax(dim=-1)
    return module.proj((attention @ v).transpose(1, 2).reshape(B, N, W))


def released(scorer, path):
    """The released path, from file to scores."""
    volume = torch.from_numpy(np.ascontiguousarray(bench_preprocess.released(path)))[None]
    model = scorer.model
    with torch.inference_mode():
        x = model.vision.embed(volume)
        for block in model.vision.blocks:
            x = x + spelled_out_attention(block.attention, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        v = model.vision_projection(model.vision.norm(x)[:, 0])
        ids, mask = scorer.tokenizer.encode([row.prompts[0] for row in FIRST])
        extra = model.config.text_length - ids.shape[1]
        ids, mask = (torch.from_numpy(np.pad(rows, ((0, 0), (0, extra)))) for rows in (ids, mask))
        t = model.embed_text(ids, mask)
        return ((cosines(v, t) + cosines(model.bank(v), t)) / 2)[0].numpy()


def ours(scorer, path, abnormalities):
    return np.array([row.score for row in scorer.score(path, abnormalities).scores])


def forget(scorer):
    """Make the scorer as it is after start-up."""
    scorer._last = None
    scorer._texts.clear()


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def products(shapes, repeats=3):
    """Seconds that bare matrix products of these shapes take, and their FLOP."""
    seconds, flop = 0.0, 0
    for batch, n, k, m, count in shapes:
        a, b = torch.randn(batch, n, k), torch.randn(batch, k, m)
        torch.bmm(a, b)
        seconds += count * statistics.median(timed(torch.bmm, a, b)[0] for _ in range(repeats))
        flop += count * 2 * batch * n * k * m
    return seconds, flop


def encoder_rate(scorer, repeats):
    """The image encoder beside bare matrix products of the same shapes."""
    config = scorer.model.config
    N, W, H, L = 4097, config.vision_width, config.vision_heads, config.vision_depth
    shapes = [
        (1, N - 1, 2048, W, 1),
        (1, N, W, 3 * W, L),
        (1, N, W, W, L),
        (1, N, W, config.vision_mlp_size, L),
        (1, N, config.vision_mlp_size, W, L),
        (H, N, W // H, N, L),
        (H, N, N, W // H, L),
    ]
    volume = torch.randn(1, 1, 256, 256, 128)
    with torch.inference_mode():
        scorer.model.embed_image(volume)
        encoder, bare = [], []
        for _ in range(repeats):
            encoder.append(timed(scorer.model.embed_image, volume)[0])
            seconds, flop = products(shapes)
            bare.append(seconds)
    return statistics.median(encoder), statistics.median(bare), flop


def measure(weights, path, repeats):
    """Return medians of both paths, of the second list, and the largest difference of scores."""
    scorer = Scorer.from_pretrained(weights, device="cpu", precision="fp32", cache=False)
    ours_s, released_s, second_s, apart = [], [], [], 0.0
    ours(scorer, path, FIRST)
    for _ in range(repeats):
        forget(scorer)
        seconds, scores = timed(ours, scorer, path, FIRST)
        ours_s.append(seconds)
        second_s.append(timed(ours, scorer, path, SECOND)[0])
        seconds, expected = timed(released, scorer, path)
        released_s.append(seconds)
        apart = max(apart, float(np.abs(scores - expected).max()))
    return scorer, [statistics.median(times) for times in (ours_s, second_s, released_s)], apart


def peak_memory(weights, path):
    """Peak resident memory in GB of a fresh process that scores one scan."""
    code = (
        "import resource, sys\n"
        "from brgsa import AbnormalityList, Scorer\n"
        "Scorer.from_pretrained(sys.argv[1], cache=False).score(sys.argv[2], AbnormalityList.preset('ct-rate-18'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(weights), str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) * 1024 / 1e9


def growth(scans, folder):
    """How much resident memory grows from scan 20 to the last one, in percent; small scans and the phantom weights."""
    paths = [volumes.write_chest(folder / f"{n}.nii.gz", (128, 128, 60), (3.0, 3.0, 5.0), seed=n) for n in range(8)]
    scorer = Scorer.from_pretrained("phantom", device="cpu", cache=False)
    resident = []
    for n in range(scans):
        scorer.score(paths[n % len(paths)], FIRST)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    return 100 * (resident[-1] / resident[min(20, scans - 1)] - 1), resident[-1] / 1e9


def startup(arguments, repeats):
    """Median seconds of a whole process."""
    command = [sys.executable, "-m", "brgsa", *arguments]
    return statistics.median(
        timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))[0] for _ in range(repeats)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method (default %(default)s)")
    parser.add_argument("--scans", type=int, default=200, help="scans of the memory test (default %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    rows = []

    def row(what, value, goal, reached):
        rows.append({"what": what, "value": value, "goal": goal, "reached": bool(reached)})

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BRGSA_CACHE"] = str(folder / "cache")
        path = volumes.write_chest(folder / "chest.nii.gz")
        weights = full_size_weights(folder)
        memory = peak_memory(weights, path)
        scorer, (first, second, old), apart = measure(weights, path, options.repeats)
        encoder, bare, flop = encoder_rate(scorer, options.repeats)
        del scorer
        grown, resident = growth(options.scans, folder)
        starts = {" ".join(words): startup(words, options.repeats) for words in (["--help"], ["abnormalities", "list"])}

    row("file to table, released path", f"{old:.1f} s", "", True)
    row("file to table, brgsa", f"{first:.1f} s ({old / first:.2f} times faster)", "3 times faster", old / first >= 3)
    row("largest difference of the 18 scores", f"{apart:.1e}", "pixel type apart, equal", apart < 5e-3)
    row("image encoder alone", f"{encoder:.2f} s, {flop / encoder / 1e9:.0f} GFLOP/s", "", True)
    share = bare / encoder
    row(
        "share of the bare matrix products' rate",
        f"{share:.0%} of {flop / bare / 1e9:.0f} GFLOP/s",
        "60 %",
        share >= 0.6,
    )
    row("second list on the same scan", f"{second:.2f} s ({second / first:.1%})", "under 2 %", second / first < 0.02)
    row("peak memory, one scan", f"{memory:.2f} GB", "under 3.5 GB", memory < 3.5)
    row(f"resident memory over {options.scans} scans", f"{grown:+.1f} % ({resident:.2f} GB)", "under +5 %", grown < 5)
    for words, seconds in starts.items():
        row(f"brgsa {words}", f"{seconds:.2f} s", "under 0.4 s", seconds < 0.4)

    print(f"\n{torch.get_num_threads()} threads, {options.repeats} repeats, torch {torch.__version__}, fp32\n")
    print("| what | measured | goal | |\n|---|---|---|---|")
    for line in rows:
        verdict = "" if not line["goal"] else "reached" if line["reached"] else "missed"
        print(f"| {line['what']} | {line['value']} | {line['goal']} | {verdict} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
