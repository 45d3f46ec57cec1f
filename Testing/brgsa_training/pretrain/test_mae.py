"""The masked autoencoder learns, is cut and resumed, and gives what a recipe starts from."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from brgsa.errors import UsageError
from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa.weights.released import convert_state
from brgsa_training.cli import main
from brgsa_training.pretrain.checkpoint import load_checkpoint
from brgsa_training.pretrain.command import parse
from brgsa_training.pretrain.image_trainer import ImageRecipe, ImageTrainer
from brgsa_training.pretrain.mae import MaskConfig, MaskedAutoencoder, released_layout
from brgsa_training.pretrain.material import open_material
from brgsa_training.pretrain.trainer import Trainer

OPTIONS = """
data: {crop: null}
model: {patch_size: [4, 4, 4], position_grid: [2, 2, 2], vision_width: 24, vision_depth: 1, vision_heads: 2,
        vision_mlp_size: 48}
mask: {share: 0.5, decoder_width: 24, decoder_depth: 1, decoder_heads: 2}
optimizer: {lr: 0.01}
schedule: {kind: cosine, warmup_steps: 5}
training: {batch_size: 8, steps: 30, save_every: 10, device: cpu, precision: fp32}
"""


@pytest.fixture
def options(small_run, tmp_path):
    (tmp_path / "image.yaml").write_text(OPTIONS)
    return ["--config", str(tmp_path / "image.yaml"), "--data.cache", str(small_run.cache)]


def image_trainer(options, out, *more):
    recipe, _, _ = parse([*options, *more], ImageRecipe)
    return ImageTrainer(recipe, out=out)


def small_vision():
    torch.manual_seed(0)
    config = BrgSAConfig(
        patch_size=(4, 4, 4),
        position_grid=(2, 2, 2),
        vision_width=24,
        vision_depth=2,
        vision_heads=2,
        vision_mlp_size=48,
    )
    return BrgSAModel(config).vision


def test_hidden_patches_play_no_part_in_what_the_encoder_sees():
    autoencoder = MaskedAutoencoder(small_vision(), MaskConfig(0.5, 24, 1, 2))
    volume = torch.randn(1, 1, 8, 8, 8)
    order = torch.tensor([[3, 0, 6, 1, 2, 4, 5, 7]])
    seen_tokens = []
    autoencoder.vision.norm.register_forward_hook(lambda module, inputs, output: seen_tokens.append(output))
    loss = autoencoder(volume, order)
    other = volume.clone()
    other[:, :, 4:, 4:, 4:] += 100 * torch.randn(4, 4, 4)  # patch 7 is hidden
    other_loss = autoencoder(other, order)
    assert torch.equal(*seen_tokens) and seen_tokens[0].shape == (1, 5, 24) and loss != other_loss


def test_the_whole_volume_seen_gives_the_tokens_of_the_encoder():
    vision = small_vision()
    autoencoder = MaskedAutoencoder(vision, MaskConfig(1 / 8, 24, 1, 2))
    volume, tokens = torch.randn(2, 1, 8, 8, 8), []
    vision.norm.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    volume[:, :, 4:, 4:, 4:] = 0
    with torch.no_grad():
        for block in vision.blocks:  # without attention every token depends on its own patch alone
            block.attention.proj.weight.zero_()
    autoencoder(volume, torch.arange(8).expand(2, -1))
    vision(volume)
    torch.testing.assert_close(tokens[0], tokens[1][:, :8])


def test_the_loss_of_painting_nothing_is_one_and_falls_with_training(options, tmp_path):
    trainer = image_trainer(options, tmp_path / "image", "--training.steps", "150")
    first = trainer._one_step(trainer.dataset.collate([trainer.dataset[key] for key in trainer.batches.batch(0)]))
    assert 0.9 < first < 3
    trainer.run()
    assert np.mean(trainer.losses[-20:]) < first - 0.1


def test_a_run_that_is_cut_and_resumed_equals_an_uncut_one(options, tmp_path):
    image_trainer(options, tmp_path / "whole").run()
    cut = image_trainer(options, tmp_path / "cut")
    take, cut._one_step = cut._one_step, None

    def one_step(batch):
        if cut.step == 25:
            raise KeyboardInterrupt
        return take(batch)

    cut._one_step = one_step
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    assert load_checkpoint(tmp_path / "cut" / "last.pt")["step"] == 20
    with pytest.raises(UsageError, match="holds a run"):
        image_trainer(options, tmp_path / "cut").run()
    image_trainer(options, tmp_path / "cut").run(resume=True)
    ours, theirs = (torch.load(tmp_path / name / "image.pth", weights_only=True) for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_goes_on_from_the_checkpoint_it_is_given(options, tmp_path):
    image_trainer(options, tmp_path / "first").run()
    last = tmp_path / "first" / "last.pt"
    assert main(["pretrain-image", *options, "--out", str(tmp_path / "second"), "--resume", str(last)]) == 0
    ours, theirs = (torch.load(tmp_path / name / "image.pth", weights_only=True) for name in ("second", "first"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "second" / "last.pt").exists()  # nothing was left to train


def test_the_result_is_what_a_recipe_starts_from(options, small_run, tmp_path, capsys):
    assert main(["pretrain-image", *options, "--out", str(tmp_path / "image"), "--training.centre", "8"]) == 0
    assert "image.pth (for --start.image)" in capsys.readouterr().out
    recipe = small_run.recipe("--start.image", str(tmp_path / "image" / "image.pth"))
    model = Trainer(recipe, open_material(recipe)).model
    expected = load_checkpoint(tmp_path / "image" / "last.pt")["model"]
    for name, tensor in model.vision.state_dict().items():
        assert torch.equal(tensor, expected[f"vision.{name}"]), name


def test_the_released_layout_is_that_of_the_fixture(parity):
    state = load_file(parity / "tiny_state_dict.safetensors")
    prefix = "gloria.img_encoder.model."
    expected = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    config = BrgSAConfig(
        embedding_size=32,
        position_grid=(2, 2, 2),
        vision_width=48,
        vision_depth=3,
        vision_heads=4,
        vision_mlp_size=192,
        bank_size=64,
        text={"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4}
        | {"intermediate_size": state["gloria.text_encoder.model.encoder.layer.0.intermediate.dense.weight"].shape[0]}
        | {"vocab_size": len(state["gloria.text_encoder.model.embeddings.word_embeddings.weight"])}
        | {"max_position_embeddings": len(state["gloria.text_encoder.model.embeddings.position_embeddings.weight"])},
    )
    model = BrgSAModel(config)
    model.load_state_dict(convert_state(state, config))
    flat = released_layout(model.vision)
    assert flat.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(flat[name], tensor), name
