"""What the commands under attack work on, and the table of what was done to them."""

import functools
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from killing import Child, count_changes
from process_table import new_mark

sys.path.append(str(Path(__file__).parent))
from attacked import COMMANDS, Round
from folder_contents import contents

# The children are copies of this process: what they import is paid for once here. Nothing here computes with torch.
import brgsa_training.phantom.demonstration
import brgsa_training.pretrain.image_trainer
import brgsa_training.summarize.openai_backend  # noqa: F401
from brgsa_training.cli import main as training

ATTACKS = Counter()

RECIPE = """
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
training: {batch_size: 4, steps: 15, validate_every: 4, save_every: 3, text_dropout: true, tensorboard: false,
           device: cpu, precision: fp32, patience: null}
"""
DEMONSTRATION = """
base: phantom
phantoms: {train: 16, validation: 12, test: 12, long_steps: 3}
model: {patch_size: [16, 16, 16], position_grid: [4, 3, 4], vision_width: 24, vision_depth: 1, vision_heads: 2,
        vision_mlp_size: 48, embedding_size: 16, bank_size: 20}
start: {data_dependent: 16, principal: 0}
training: {batch_size: 8, steps: 4, validate_every: 2, save_every: 1}
"""
WORDS = ("nodule", "pleural effusion", "emphysema", "cardiomegaly", "fracture of a rib")


@pytest.fixture(scope="session")
def material(tmp_path_factory, parity):
    """Scans, a cache of them, captions, reports and recipes, made by the commands themselves."""
    from brgsa.preprocess import PreprocessingPlan

    folder = tmp_path_factory.mktemp("material") / "work"
    folder.mkdir()

    def run(main, *arguments):
        assert Child(main, arguments, folder, new_mark()).wait() == 0, (folder.parent / "log.txt").read_text()

    options = ("--split", "train=0.8,valid=0.2", "--workers", "1", "--out", "phantoms")
    run(training, "phantom", "generate", "--count", "30", *options)
    volumes = sorted((folder / "phantoms" / "volumes").iterdir())
    for name, paths in (("scans", volumes[:5]), ("others", volumes[5:8])):
        (folder / name).mkdir()
        for path in paths:
            (folder / name / path.name).write_bytes(path.read_bytes())
    PreprocessingPlan(spacing=(48.0, 48.0, 48.0), shape=(8, 8, 8)).save(folder / "plan.json")
    options = ("--plan", "plan.json", "--workers", "1", "--out", "cache")
    run(training, "preprocess", "folder", "phantoms/volumes", *options)
    (folder / "list.txt").write_text("Lung nodule\nEmphysema\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "demonstration.yaml").write_text(DEMONSTRATION)
    (folder / "vocab.txt").write_bytes((parity / "tiny_vocab.txt").read_bytes())
    rng = np.random.default_rng(0)
    reports = [
        {
            "id": f"train_{number}_a",
            "text": f"Report {number} of the chest. There is {WORDS[rng.integers(5)]}. The heart size is normal.",
            "images": [f"train_{number}_a_1.nii.gz"],
        }
        for number in range(140)
    ]
    for name, part in (("reports", reports[:120]), ("others", reports[120:])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(report)}\n" for report in part))
    return folder


@pytest.fixture(scope="session")
def uncut(material, tmp_path_factory):
    """The result of an uncut run of a command, the number of its changes of files, and its seconds."""

    @functools.cache
    def run(name: str) -> tuple[dict[str, str], int, float]:
        folder, other = tmp_path_factory.mktemp("uncut"), tmp_path_factory.mktemp("uncut")
        counted, timed = Round(COMMANDS[name], material, folder), Round(COMMANDS[name], material, other)
        assert counted.start(count_changes(counted.out, folder / "changes")).wait() == 0, (
            folder / "log.txt"
        ).read_text()
        started = time.monotonic()
        assert timed.start().wait() == 0
        seconds = time.monotonic() - started
        assert contents(counted.out) == contents(timed.out), "two uncut runs differ"
        return contents(timed.out), int((folder / "changes").read_text()), seconds

    return run


@pytest.fixture
def attacks():
    """Counts an attack in the table at the end; what is not as it should be after it fails its test."""

    def count(name: str) -> None:
        ATTACKS[name] += 1

    return count


def pytest_configure(config):
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_terminal_summary(terminalreporter):
    if ATTACKS:
        terminalreporter.section("attacks")
        for name, count in sorted(ATTACKS.items()):
            terminalreporter.write_line(f"{name:75} {count:5}")
        failed = len(terminalreporter.stats.get("failed", ()))
        kills = sum(count for name, count in ATTACKS.items() if "killed" in name)
        terminalreporter.write_line(f"{'all kills':75} {kills:5}")
        terminalreporter.write_line(
            f"{'all attacks':75} {sum(ATTACKS.values()):5}   tests that lost something: {failed}"
        )
