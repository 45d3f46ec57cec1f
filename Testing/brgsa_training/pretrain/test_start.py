"""Models start from the released layouts of pretrained encoders, or from statistics of the data."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from brgsa.errors import SetupError, UsageError
from brgsa.model import BrgSAModel, sine_position_table
from brgsa_training.data.pairs import to_model_input
from brgsa_training.pretrain.build import model_config
from brgsa_training.pretrain.mae import released_layout
from brgsa_training.pretrain.material import open_material
from brgsa_training.pretrain.schedule import ScheduleConfig, rate_share
from brgsa_training.pretrain.start import (
    centre_patches,
    load_image,
    load_text,
    resized_position_table,
    spread_projections,
)
from brgsa_training.pretrain.trainer import Trainer

PREFIX = "gloria.img_encoder.model."


@pytest.fixture
def image_file(parity, tmp_path):
    """A flat file as the released masked autoencoder is kept, with a decoder; 32 x 32 x 16 voxels, width 48."""
    state = load_file(parity / "tiny_state_dict.safetensors")
    flat = {key.removeprefix(PREFIX): tensor for key, tensor in state.items() if key.startswith(PREFIX)}
    path = tmp_path / "m3ae.pth"
    torch.save(flat | {"decoder.weight": torch.zeros(3), "mask_token": torch.zeros(1, 1, 48)}, path)
    return path


def image_model(small_run, *options):
    recipe = small_run.recipe(
        *("--model.patch_size", "[16,16,8]", "--model.vision_width", "48", "--model.vision_depth", "3"),
        *("--model.vision_heads", "4", "--model.vision_mlp_size", "192", *options),
    )
    return BrgSAModel(model_config(recipe, 60))


def test_the_image_encoder_of_the_released_layout_is_loaded(small_run, image_file, parity):
    model = image_model(small_run)
    assert sorted(load_image(model, image_file)) == ["decoder.weight", "mask_token"]
    io = np.load(parity / "tiny_model_io.npz")
    token = model.eval().vision(torch.from_numpy(io["x_base"]))[0]
    torch.testing.assert_close(token, torch.from_numpy(io["base_cls_after_norm"]), rtol=1e-5, atol=1e-5)


def test_a_position_table_of_another_length_is_resized(small_run, image_file):
    model = image_model(small_run, "--model.position_grid", "[4,4,4]")
    before = torch.load(image_file, weights_only=True)["pos_embed"][0]
    load_image(model, image_file)
    torch.testing.assert_close(model.vision.position.data, resized_position_table(before, (4, 4, 4)))
    assert torch.equal(model.vision.position[0], before[0])


def test_the_grid_of_a_position_table_is_guessed_as_in_the_released_code():
    cube = sine_position_table((3, 3, 3), 12)
    torch.testing.assert_close(resized_position_table(cube, (3, 3, 3)), cube)
    twelve = torch.arange(13.0)[:, None]  # 1 x 1 x 12 is the first factorisation in ascending order
    assert resized_position_table(twelve, (1, 1, 12))[:, 0].tolist() == twelve[:, 0].tolist()


def test_an_image_file_of_another_model_is_refused(small_run, image_file, tmp_path):
    with pytest.raises(SetupError, match=r"does not fit this image encoder: vision\.class_token"):
        load_image(image_model(small_run, "--model.vision_width", "96"), image_file)
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(SetupError, match=r"junk\.pth"):
        load_image(image_model(small_run), tmp_path / "junk.pth")


@pytest.fixture
def bert_folder(parity, tmp_path):
    fields = json.loads((parity / "tiny_bert_config.json").read_text())
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = BertConfig(**{name: fields[name] for name in names}, max_position_embeddings=40)
    torch.manual_seed(3)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text((parity / "tiny_vocab.txt").read_text())
    return tmp_path / "bert", config


def bert_options(folder, config):
    return [
        *("--start.text", str(folder), "--data.vocabulary", "null"),
        *("--model.text.hidden_size", str(config.hidden_size)),
        *("--model.text.num_hidden_layers", str(config.num_hidden_layers)),
        *("--model.text.num_attention_heads", str(config.num_attention_heads)),
        *("--model.text.intermediate_size", str(config.intermediate_size)),
        *("--model.text.max_position_embeddings", "40"),
    ]


@pytest.mark.parametrize("pickled", [False, True])
def test_the_text_encoder_of_a_hugging_face_folder_is_loaded_with_its_vocabulary(small_run, bert_folder, pickled):
    folder, config = bert_folder
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    recipe = small_run.recipe(*bert_options(folder, config))
    trainer = Trainer(recipe, open_material(recipe))
    expected = torch.load(folder / "pytorch_model.bin") if pickled else load_file(folder / "model.safetensors")
    for name, tensor in trainer.model.text.bert.state_dict().items():
        assert torch.equal(tensor, expected[f"bert.{name}"]), name


def test_a_text_encoder_of_other_sizes_is_refused(small_run, bert_folder):
    folder, config = bert_folder
    options = bert_options(folder, config)
    recipe = small_run.recipe(*options, "--model.text.intermediate_size", "8")
    with pytest.raises(SetupError, match=r"has another size of encoder\.layer\.0\.intermediate"):
        Trainer(recipe, open_material(recipe))
    recipe = small_run.recipe(*options, "--model.text.num_hidden_layers", str(config.num_hidden_layers + 1))
    with pytest.raises(SetupError, match=r"lacks encoder\.layer"):
        Trainer(recipe, open_material(recipe))


def test_a_damaged_text_encoder_is_named(small_run, bert_folder):
    folder, config = bert_folder
    (folder / "model.safetensors").write_bytes(b"\0" * 20)
    recipe = small_run.recipe(*bert_options(folder, config))
    with pytest.raises(SetupError, match=r"model\.safetensors is damaged"):
        Trainer(recipe, open_material(recipe))
    with pytest.raises(SetupError, match="pytorch_model"):
        load_text(Trainer(small_run.recipe(), open_material(small_run.recipe())).model, folder.parent)


def test_a_run_can_start_from_the_weights_of_another(small_run):
    recipe = small_run.recipe()
    weights = Trainer(recipe, open_material(recipe)).run().weights
    again = Trainer(
        small_run.recipe("--start.weights", str(weights)), open_material(recipe), small_run.out.parent / "b"
    )
    expected = load_file(weights / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.state_dict().items())
    with pytest.raises(UsageError, match=r"start\.weights has another size of"):
        Trainer(small_run.recipe("--start.weights", str(weights), "--model.bank_size", "30"), open_material(recipe))


def test_a_start_from_data_centres_tokens_and_spreads_embeddings(small_run):
    recipe = small_run.recipe()
    trainer = Trainer(recipe, open_material(recipe))
    model, pairs = trainer.model, trainer.material.train
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    centre_patches(model.vision, pairs, 20)
    spread_projections(model, pairs, 20)
    batch = pairs.collate([pairs[(0, number)] for number in range(20)])
    volume = to_model_input(batch.voxels, pairs.volumes.plan)
    with torch.no_grad():
        model.eval()
        tokens = model.vision.embed(volume)[:, 1:].mean(0)
        position = plain["vision.position"][1:] + plain["vision.patch_embedding.bias"]
        torch.testing.assert_close(tokens, position, rtol=1e-4, atol=1e-4)
        for embeddings in (model.embed_image(volume), model.embed_text(batch.ids, batch.mask)):
            assert embeddings.mean(0).abs().max() < 1e-4
            assert embeddings.var(0).mean() == pytest.approx(1, rel=1e-3)


def test_an_image_encoder_that_was_loaded_is_not_centred_but_its_projection_is_spread(small_run, tmp_path):
    recipe = small_run.recipe()
    encoder = Trainer(recipe, open_material(recipe)).model.vision
    torch.save(released_layout(encoder), tmp_path / "image.pth")
    recipe = small_run.recipe("--start.image", str(tmp_path / "image.pth"), "--start.data_dependent", "20")
    model = Trainer(recipe, open_material(recipe), tmp_path / "run").model
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in model.vision.state_dict().items())
    pairs = open_material(recipe).train
    batch = pairs.collate([pairs[(0, number)] for number in range(20)])
    with torch.no_grad():
        embeddings = model.eval().embed_image(to_model_input(batch.voxels, pairs.volumes.plan))
    assert embeddings.var(0).mean() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("statistic", "learned"), [("principal", "image"), ("principal", "weights"), ("data_dependent", "weights")]
)
def test_statistics_of_the_data_do_not_write_over_what_was_learned(small_run, statistic, learned):
    recipe = small_run.recipe(f"--start.{learned}", "some", f"--start.{statistic}", "8")
    expected = rf"start\.{statistic} would write over what start\.{learned} brings. Give --start\.{statistic} 0"
    with pytest.raises(UsageError, match=expected):
        Trainer(recipe, open_material(recipe))


def test_a_start_from_data_needs_the_grid_of_the_position_table(small_run):
    recipe = small_run.recipe("--model.position_grid", "[4,4,4]", "--start.data_dependent", "8")
    with pytest.raises(UsageError, match="a start from data needs crops"):
        Trainer(recipe, open_material(recipe))


def test_the_released_rate_is_constant_and_the_cosine_warms_up_and_falls():
    assert {rate_share(step, 100, ScheduleConfig()) for step in range(100)} == {1.0}
    cosine = ScheduleConfig(kind="cosine", warmup_steps=10, final_share=0.03)
    shares = [rate_share(step, 100, cosine) for step in range(101)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1.0 and shares[100] == pytest.approx(0.03)
    assert shares[55] == pytest.approx(0.515) and shares[10:] == sorted(shares[10:], reverse=True)
