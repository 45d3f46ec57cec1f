"""Fixtures that every test may use."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "Testing" / "standins"))
SHARED = Path(os.environ.get("BRGSA_SHARED", REPOSITORY.parent / "shared"))


# A shell starts what runs in its background deaf to Ctrl-C, and so would be the programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def shared_folder(*parts: str) -> Path:
    folder = SHARED.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"{folder} is not there (set BRGSA_SHARED to the folder with the real scans and reports)")
    return folder


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of the numeric fixtures made with the released model's code and random weights."""
    return Path(__file__).parent / "fixtures" / "parity"


@pytest.fixture(scope="session")
def parity_model(parity):
    """A function that makes the model of the numeric fixtures anew: released tensors, mapped to our names."""

    def make():
        from safetensors.torch import load_file

        from brgsa.model import BrgSAConfig, BrgSAModel
        from brgsa.weights.released import convert_state

        sizes = json.loads((parity / "tiny_model.json").read_text())
        vision, text, bert = sizes["vision"], sizes["text"], json.loads((parity / "tiny_bert_config.json").read_text())
        config = BrgSAConfig(
            embedding_size=text["embedding_dim"],
            patch_size=vision["patch_size"],
            position_grid=[i // p for i, p in zip(vision["img_size"], vision["patch_size"], strict=True)],
            vision_width=vision["hidden_size"],
            vision_depth=vision["num_layers"],
            vision_heads=vision["num_heads"],
            vision_mlp_size=vision["mlp_dim"],
            text={k: v for k, v in bert.items() if k.endswith(("size", "layers", "heads", "embeddings"))},
            text_layers=text["last_n_layers"],
            text_length=text["word_num"],
            bank_size=sizes["bank"]["size"],
        )
        model = BrgSAModel(config).eval()
        model.load_state_dict(convert_state(load_file(parity / "tiny_state_dict.safetensors"), config))
        return model

    return make


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Folder of real CT scans; tests that need it skip where it is missing."""
    return shared_folder("data", "ct")


@pytest.fixture(scope="session")
def real_reports() -> Path:
    """Folder of real CT reports with labels; tests that need it skip where it is missing."""
    return shared_folder("data", "reports")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Keep every test out of the user's own cache and settings."""
    monkeypatch.setenv("BRGSA_CACHE", str(tmp_path_factory.mktemp("cache")))
