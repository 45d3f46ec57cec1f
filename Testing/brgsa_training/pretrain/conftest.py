"""A small cache with captions, and the options of a recipe that trains on it in a second."""

import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from brgsa.preprocess import PreprocessingPlan
from brgsa_training.data.cache import CachedCase, claim, growing_manifest, write_volume
from brgsa_training.pretrain.command import parse
from brgsa_training.pretrain.recipe import Recipe

PLAN = PreprocessingPlan(spacing=(48.0, 48.0, 48.0), shape=(8, 8, 8))
WORDS = ("pleural effusion", "lung nodule", "pericardial effusion", "ground glass opacity", "cardiomegaly")
OPTIONS = """
data: {validation_split: valid, crop: null, fewest_sentences: 1, sentences: 2}
model:
  embedding_size: 16
  patch_size: [4, 4, 4]
  position_grid: [2, 2, 2]
  vision_width: 24
  vision_depth: 1
  vision_heads: 2
  vision_mlp_size: 48
  text: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32,
         max_position_embeddings: 32}
  text_layers: 2
  text_length: 24
  bank_size: 20
optimizer: {lr: 0.01, betas: [0.9, 0.999], clip: 5}
training: {batch_size: 4, epochs: 4, tensorboard: false, device: cpu, precision: fp32, patience: null}
"""


@dataclass(frozen=True)
class SmallRun:
    """Paths of a small training run, and its recipe as options of the command."""

    cache: Path
    captions: Path
    recipe_file: Path
    vocabulary: Path
    out: Path

    @property
    def options(self) -> list[str]:
        return [
            *("--config", str(self.recipe_file)),
            *("--data.cache", str(self.cache)),
            *("--data.captions", str(self.captions)),
            *("--data.vocabulary", str(self.vocabulary)),
            *("--out", str(self.out)),
        ]

    def recipe(self, *options: str) -> Recipe:
        return parse([*self.options, *options])[0]

    def elsewhere(self, name: str) -> "SmallRun":
        return replace(self, out=self.out.parent / name)


@pytest.fixture
def small_run(tmp_path, parity) -> SmallRun:
    """21 studies to train on, some with two reconstructions, and 6 of other patients to validate on."""
    rng = np.random.default_rng(0)
    cache, captions = tmp_path / "cache", {"train": {}, "valid": {}}
    claim(cache, PLAN, "exact")
    with growing_manifest(cache, {}) as manifest:
        for number in range(27):
            word = number % len(WORDS)
            study, names = f"s{number}", [f"s{number}_{n}" for n in range(1 + number % 2)]
            for name in names:
                hu = rng.normal(-500 + 200 * word, 50, PLAN.shape)
                manifest.add(CachedCase(name, study, study, *write_volume(cache, name, hu)))
            entry = {"images": [f"{name}.nii.gz" for name in names]}
            entry["processed_report"] = [f"there is {WORDS[word]}", "heart size normal", "nodules are detected"]
            captions["train" if number < 21 else "valid"][study] = entry
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "recipe.yaml").write_text(OPTIONS)
    paths = (cache, tmp_path / "captions.json", tmp_path / "recipe.yaml", parity / "tiny_vocab.txt", tmp_path / "out")
    return SmallRun(*paths)


@pytest.fixture
def free_port():
    """A function that returns the number of a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return sock.getsockname()[1]

    return find
