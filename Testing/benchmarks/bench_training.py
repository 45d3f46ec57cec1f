"""What training needs: loading from the cache, memory per volume, opening a large manifest, overhead of the loop.

    python Testing/benchmarks/bench_training.py --volumes 40 --seconds 8

* loading: full-size volumes (256 x 256 x 128 int16 in the cache) cropped to 224 x 224 x 112 and put into batches, with
  captions, by two threads; the bytes are those of the page cache after a first round, as on a machine whose memory
  or disk keeps up.
* memory: what autograd keeps of the full-size image encoder for one volume, by saved-tensor hooks, beside the estimate.
* manifest: opening a cache of 20,000 cases.
* scaling: from int16 to the encoder's input, on one core.
* waiting: the trainer's own meter over real steps of 2 pairs on the CPU, from full-size volumes that are not in the
  page cache. The text encoder is narrow, and by default the image encoder has one of its twelve blocks: a step is far
  shorter than one of the full-size model, with less time to load the next batch behind it, so the share that is waited
  is larger. `--blocks 12 --steps 3` is the whole image encoder (6 GB).
* needed: the volumes per second that one H100 would take at 40 % of its peak, from the arithmetic of the model.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from brgsa.model import BrgSAConfig, VisionTransformer3D
from brgsa.preprocess import PreprocessingPlan
from brgsa_training.data.cache import CachedCase, VolumeCache, claim, growing_manifest, write_volume
from brgsa_training.data.captions import CaptionTokenizer, studies_of
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import PairDataset, to_model_input
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.pretrain.build import model_config
from brgsa_training.pretrain.flops import peak_flops, step_flops
from brgsa_training.pretrain.material import open_material
from brgsa_training.pretrain.memory import SavedTensors, image_bytes
from brgsa_training.pretrain.recipe import DataConfig, ModelConfig, Recipe, TextConfig, TrainingConfig
from brgsa_training.pretrain.trainer import Trainer

PLAN = PreprocessingPlan()
CROP = (224, 224, 112)
SENTENCES = ["there is pleural effusion", "heart size normal", "nodules are detected", "there is lung nodule"] * 3
VOCABULARY = Path(__file__).parents[1] / "fixtures" / "parity" / "tiny_vocab.txt"


def make_cache(folder, count):
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, PLAN.shape).astype(np.int16)
    claim(folder, PLAN, "exact")
    with growing_manifest(folder, {}) as manifest:
        for number in range(count):
            name = f"c{number}"
            manifest.add(CachedCase(name, name, name, *write_volume(folder, name, np.roll(hu, number, 2))))
    return VolumeCache.open(folder)


def loading(cache, seconds, workers, batch_size=8):
    studies = studies_of(dict.fromkeys(cache.cases, SENTENCES))
    pairs = PairDataset(cache, studies, CaptionTokenizer(VOCABULARY, 97), crop=CROP)
    batches = StudyBatches(len(pairs), batch_size)
    loader = BatchLoader(pairs, batches, workers)
    loaded = iter(loader)
    for _ in range(2 * len(pairs) // batch_size + 1):  # every file has been read once, and all workers have begun
        next(loaded)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(loaded).cases)
    return count / (time.perf_counter() - start)


def memory(dtype):
    config = BrgSAConfig()
    vision = VisionTransformer3D(config)
    volume = torch.randn(1, 1, *CROP)
    start = time.perf_counter()
    mixed = dtype != torch.float32
    with torch.autocast("cpu", dtype=dtype, enabled=mixed), SavedTensors(exclude=vision) as saved:
        vision(volume)
    # copies of the weights in bf16 are kept once for all volumes of a batch
    weights = 2 * sum(p.numel() for p in vision.parameters() if p.dim() == 2 and p.requires_grad) if mixed else 0
    patches = volume.numel() * dtype.itemsize
    seconds = time.perf_counter() - start
    return saved.bytes - weights - patches, image_bytes(config, CROP, dtype.itemsize), seconds


def manifest(folder, count=20_000):
    claim(folder, PLAN, "exact")
    with growing_manifest(folder, {}) as writer:
        for number in range(count):
            name = f"train_{number}_a_1"
            writer.add(CachedCase(name, name[:-2], name[:-4], 16_777_344, f"{number:064x}", "already in HU"))
    start = time.perf_counter()
    VolumeCache.open(folder)
    return time.perf_counter() - start


def waiting(folder, cache, workers, steps, blocks, batch_size=2):
    """Seconds of a step, and the share of them in which training waits for its batch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    studies = {case: {"images": [case], "processed_report": SENTENCES} for case in cache.cases}
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"train": studies}), encoding="utf-8")
    text = TextConfig(hidden_size=192, num_hidden_layers=4, num_attention_heads=4, intermediate_size=768)
    recipe = Recipe(
        data=DataConfig(
            cache=str(cache.folder),
            captions=str(captions),
            vocabulary=str(VOCABULARY),
            validation_split=None,
            validation_share=0.0,
            crop=CROP,
            workers=workers,
        ),
        model=ModelConfig(vision_depth=blocks, text=text),
        training=TrainingConfig(batch_size=batch_size, steps=steps, log_every=1, device="cpu", precision="fp32"),
    )
    trainer = Trainer(recipe, open_material(recipe), folder / "run")
    forget(cache.folder)
    trainer.run(until=steps)
    events = EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    speed, share = (events.Scalars(name)[-1].value for name in ("pairs_per_second", "share_waiting_for_data"))
    return batch_size / speed, share


def forget(folder):
    """Take the files of a folder out of the page cache, where the system can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=40, help="in the temporary cache, 17 MB each")
    parser.add_argument("--seconds", type=float, default=8.0, help="of loading")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="of training, 2 pairs each")
    parser.add_argument("--blocks", type=int, default=1, help="of the image encoder that is trained")
    parser.add_argument("--skip-memory", action="store_true", help="the full-size forward pass takes 2 GB and 20 s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        print(f"{'manifest of 20,000 cases opens in':<50}{manifest(Path(folder) / 'manifest'):8.2f} s")
        start = time.perf_counter()
        cache = make_cache(Path(folder) / "cache", arguments.volumes)
        print(f"{'writing a volume with its checksum':<50}{(time.perf_counter() - start) / arguments.volumes:8.3f} s")
        speed = loading(cache, arguments.seconds, arguments.workers)
        print(f"{f'loading from the cache, {arguments.workers} threads':<50}{speed:8.1f} volumes/s")
        crop = torch.from_numpy(np.array(cache.volume("c0")[:224, :224, :112]))[None, None]
        start = time.perf_counter()
        for _ in range(5):
            to_model_input(crop, PLAN)
        print(f"{'scaling a volume to the input, one core':<50}{(time.perf_counter() - start) / 5:8.3f} s")
        seconds, share = waiting(Path(folder), cache, arguments.workers, arguments.steps, arguments.blocks)
        name = f"step of 2 pairs, {arguments.blocks} of 12 blocks, one core"
        print(f"{name:<50}{seconds:8.1f} s   waiting for data {share:.2%}")
    needed = 0.4 * peak_flops("H100") / step_flops(model_config(Recipe(), 30522), CROP, 97)
    print(f"{'needed by one H100 at 40 % of its peak':<50}{needed:8.0f} volumes/s")
    for dtype in () if arguments.skip_memory else (torch.float32, torch.bfloat16):
        measured, estimated, seconds = memory(dtype)
        name = str(dtype).removeprefix("torch.")
        print(
            f"{f'kept for one volume, 224x224x112, {name}':<50}{measured / 1e9:8.3f} GB   "
            f"estimate {estimated / 1e9:.3f} GB   forward {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
