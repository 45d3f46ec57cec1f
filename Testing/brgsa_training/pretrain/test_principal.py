"""A patch embedding that starts from principal components."""

import numpy as np
import pytest
import torch

from brgsa.errors import UsageError
from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa.preprocess import PreprocessingPlan
from brgsa_training.data.arrays import ArrayVolumes
from brgsa_training.data.volumes import VolumeDataset
from brgsa_training.pretrain.start import centre_patches, principal_patches


def vision(width):
    config = BrgSAConfig(
        patch_size=(4, 4, 4),
        position_grid=(2, 2, 2),
        vision_width=width,
        vision_depth=1,
        vision_heads=2,
        vision_mlp_size=16,
        embedding_size=8,
        text={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
        text_layers=1,
        bank_size=4,
    )
    return BrgSAModel(config).vision


@pytest.fixture
def dataset():
    plan = PreprocessingPlan(spacing=(6, 6, 6), shape=(8, 8, 8), mean=0.0, std=1.0)
    voxels = np.random.default_rng(0).normal(0, 300, (200, 8, 8, 8)).astype(np.float32)
    voxels[..., :4] *= np.linspace(0.2, 1, 4)  # some directions vary more than others
    return VolumeDataset(ArrayVolumes(voxels, plan))


def test_tokens_are_white_around_their_places(dataset):
    encoder = vision(6)
    principal_patches(encoder, dataset, 200)
    before = encoder.position.clone()
    centre_patches(encoder, dataset, 200)
    keys = [(0, number) for number in range(200)]
    volume = dataset.collate([dataset[key] for key in keys]).voxels.clamp(-1000, 1000) / 1000
    with torch.no_grad():
        tokens = encoder.embed(volume)[:, 1:] - before[1:]
    assert torch.allclose(tokens.mean(0), torch.zeros(8, 6), atol=1e-3)
    covariance = tokens.flatten(0, 1).T @ tokens.flatten(0, 1) / (200 * 8)
    assert torch.allclose(covariance, torch.eye(6), atol=1e-2)


def test_an_encoder_wider_than_a_patch_is_refused(dataset):
    with pytest.raises(UsageError, match="128 voxels or more; these have 64"):
        principal_patches(vision(128), dataset, 8)
