"""Estimates of memory and arithmetic agree with what is measured and with published figures."""

import json

import pytest
import torch

from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa_training.pretrain.flops import image_flops, peak_flops, step_flops, text_flops
from brgsa_training.pretrain.memory import SavedTensors, block_bytes, estimate, image_bytes, text_bytes

TEXT = {"vocab_size": 60, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
BERT_BASE = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}


def model():
    config = BrgSAConfig(
        embedding_size=64,
        patch_size=(8, 8, 8),
        position_grid=(6, 6, 6),
        vision_width=96,
        vision_depth=3,
        vision_heads=6,
        vision_mlp_size=384,
        text=TEXT,
        bank_size=128,
    )
    return BrgSAModel(config).train()


@pytest.mark.parametrize(("dtype", "element"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("checkpoint_blocks", [False, True])
def test_the_estimate_for_a_volume_is_within_a_tenth_of_what_autograd_keeps(dtype, element, checkpoint_blocks):
    ours = model()
    ours.vision.checkpoint_blocks = checkpoint_blocks
    volume = torch.randn(1, 1, 48, 48, 48)
    tokens = ours.vision.embed(volume).detach().requires_grad_()
    ours.vision.embed = lambda _: tokens  # patches and their embedding are counted elsewhere
    expected = image_bytes(ours.config, (48, 48, 48), element)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32), SavedTensors(exclude=ours) as saved:
        ours.vision(volume)
    if checkpoint_blocks:  # the live block is seen in the backward pass only
        live_block = block_bytes(217, 96, 384, element)
        expected = image_bytes(ours.config, (48, 48, 48), element, checkpoint_blocks=True) - live_block
    weights = sum(p.numel() for p in ours.vision.blocks.parameters() if p.dim() == 2) * 2 * (element == 2)
    assert saved.bytes - weights * (not checkpoint_blocks) == pytest.approx(expected, rel=0.1)


def test_the_estimate_gives_the_figures_of_the_full_size_model():
    """GB per volume with fused attention, measured with saved-tensor hooks on the full-size encoder."""
    config = BrgSAConfig(text=BERT_BASE)
    for shape, element, expected in (
        ((224, 224, 112), 4, 1.62),
        ((224, 224, 112), 2, 0.91),
        ((256, 256, 128), 4, 2.42),
        ((256, 256, 128), 2, 1.36),
    ):
        assert image_bytes(config, shape, element) / 1e9 == pytest.approx(expected, rel=0.02)
    assert image_bytes(config, (224, 224, 112), 4, checkpoint_blocks=True) / 1e9 == pytest.approx(0.10 + 0.11, rel=0.2)


def test_the_estimate_for_a_caption_is_near_what_autograd_keeps():
    ours = model()
    ours.text.eval()
    ids = torch.randint(0, 60, (8, 40))
    with SavedTensors(exclude=ours) as saved:
        ours.text(ids, torch.ones_like(ids))
    assert saved.bytes / 8 == pytest.approx(text_bytes(ours.config, 40), rel=0.25)


def test_an_estimate_adds_up():
    config = BrgSAConfig(text=BERT_BASE)
    found = estimate(config, 200_000_000, (224, 224, 112), 64, 2, checkpoint_blocks=False)
    assert found.state == 3_200_000_000 and found.activations == 64 * found.per_pair
    assert 58e9 < found.activations < 66e9


def test_arithmetic_is_that_of_the_reference(parity):
    """GFLOP per volume and per prompt, from the manifest of the full-size model."""
    reference = json.loads((parity / "full_model_manifest.json").read_text())
    config = BrgSAConfig(text=BERT_BASE)
    assert "keys" in reference
    for shape, expected in {
        (256, 256, 128): 1332,
        (224, 224, 112): 756,
        (224, 224, 64): 364,
        (112, 112, 112): 137,
        (112, 112, 64): 74,
    }.items():
        assert image_flops(config, shape) / 1e9 == pytest.approx(expected, rel=0.01)
    assert text_flops(config, 97) / 1e9 == pytest.approx(16.8, rel=0.01)
    assert step_flops(config, (224, 224, 112), 97) == 3 * (
        image_flops(config, (224, 224, 112)) + text_flops(config, 97)
    )


def test_peaks_are_found_by_the_name_of_the_accelerator():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H20") == 148e12 and peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("Some other card") is None
