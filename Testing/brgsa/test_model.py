"""The model reproduces the numbers of the released one (fixtures made with random weights, `fixtures/parity`)."""

import json
import math

import numpy as np
import pytest
import torch

from brgsa.class_token import class_token
from brgsa.model import BrgSAConfig, BrgSAModel, VisionTransformer3D, cosines, sine_position_table
from brgsa.weights.released import IGNORED, PREFIX, rename


@pytest.fixture(scope="module")
def io(parity):
    return {name: torch.from_numpy(array) for name, array in np.load(parity / "tiny_model_io.npz").items()}


@pytest.fixture(scope="module")
def tiny(parity_model):
    return parity_model().requires_grad_(False)


def assert_close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=tolerance, atol=tolerance)


def test_every_hidden_state_of_the_text_encoder_is_reproduced(tiny, io):
    states = tiny.text.bert(
        io["caption_ids"], attention_mask=io["attention_mask"], output_hidden_states=True
    ).hidden_states
    for layer, state in enumerate(states):
        mask = io["attention_mask"].bool()
        assert_close(state[mask], io["text_hidden_states"][layer][mask])


def test_text_embeddings_are_reproduced(tiny, io):
    assert_close(tiny.text(io["caption_ids"], io["attention_mask"]), io["text_sent_before_proj"])
    assert_close(tiny.embed_text(io["caption_ids"], io["attention_mask"]), io["text_emb_global"])


def test_padding_to_the_longest_sentence_changes_nothing(tiny, io):
    short = io["attention_mask"].sum(1) < 10
    ids, mask = io["caption_ids"][short, :10], io["attention_mask"][short, :10]
    assert short.sum() >= 3 and io["caption_ids"].shape[1] == 24
    assert_close(tiny.embed_text(ids, mask), io["text_emb_global"][short])


@pytest.mark.parametrize("size", ["base", "big"])
def test_image_tokens_and_embeddings_are_reproduced_with_and_without_a_resized_position_table(tiny, io, size):
    volume = io[f"x_{size}"]
    # tokens reach 23, so 2e-5 is the same share of them as 1e-5 of an embedding (the fixture's own tolerance is 2e-4)
    assert_close(tiny.vision.embed(volume), io[f"{size}_tokens_after_pos"], tolerance=2e-5)
    assert_close(tiny.vision(volume)[0], io[f"{size}_cls_after_norm"])
    assert_close(tiny.embed_image(volume), io[f"{size}_img_emb_global"])
    assert_close(tiny.embed_patches(volume), io[f"{size}_img_emb_local"])


@pytest.mark.parametrize("size", ["base", "big"])
def test_bank_weights_and_reconstructions_are_reproduced(tiny, io, size):
    image, text = io[f"{size}_img_emb_global"], io["text_emb_global"]
    assert_close(tiny.bank.weights(image), io[f"{size}_img_bank_weights"])
    assert_close(tiny.bank(image), io[f"{size}_img_recon"])
    assert_close(tiny.bank.weights(text), io["text_bank_weights"])
    assert_close(tiny.bank(text), io["text_recon"])


@pytest.mark.parametrize("size", ["base", "big"])
def test_the_four_score_types_and_the_final_score_are_reproduced(tiny, io, size):
    out = tiny(io[f"x_{size}"], io["caption_ids"][:1], io["attention_mask"][:1])
    text = tiny.embed_text(io["caption_ids"], io["attention_mask"])
    direct, bank = cosines(out.image, text), cosines(out.image_from_bank, text)
    assert_close(direct, io[f"{size}_score_vt"])
    assert_close(bank, io[f"{size}_score_vhat_t"])
    assert_close(cosines(out.image, tiny.bank(text)), io[f"{size}_score_v_that"])
    assert_close(cosines(out.image_from_bank, tiny.bank(text)), io[f"{size}_score_vhat_that"])
    assert_close((direct + bank) / 2, io[f"{size}_score_final"])


def test_the_published_scores_are_the_mean_of_the_two_published_parts(parity):
    rows = json.loads((parity / "published_score_rows.json").read_text())
    vt, final = np.array(rows["vt"]["row_-1"]), np.array(rows["final"]["row_-1"])
    bank = np.array(rows["vhat_t"]["row_-1_columns_13_to_17"])
    np.testing.assert_allclose((vt[13:] + bank) / 2, final[13:], atol=1e-7)


def encoder(width, grid):
    return VisionTransformer3D(
        BrgSAConfig(vision_width=width, vision_heads=1, vision_depth=0, position_grid=grid, patch_size=(16, 16, 8))
    )


def test_the_sine_table_is_reproduced(parity):
    expected = np.load(parity / "pos_embed.npz")
    np.testing.assert_allclose(
        sine_position_table((14, 14, 14), 12), expected["sincos_dim12_grid14"][0], rtol=0, atol=1e-6
    )
    full = sine_position_table((14, 14, 14), 768)
    rows = [0, 1, 2, 15, 197, 2744]
    np.testing.assert_allclose(full[rows], expected["sincos_dim768_rows_0_1_2_15_197_2744"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(full.double().sum(0), expected["sincos_dim768_grid14_sum_per_dim"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", ["256x256x128", "224x224x112", "224x224x64", "112x112x112", "112x112x64"])
def test_the_position_table_is_resized_trilinearly_to_every_grid(parity, shape):
    expected = np.load(parity / "pos_embed.npz")
    vision = encoder(12, (14, 14, 14))
    vision.position.data.copy_(torch.from_numpy(expected["base_14x14x14"][0]))
    grid = vision.grid(tuple(map(int, shape.split("x"))))
    np.testing.assert_allclose(vision.position_table(grid), expected[f"interp_{shape}"][0], rtol=0, atol=1e-6)


def test_a_non_cubic_position_table_keeps_its_own_axis_order():
    """The released code reverses the axes of a non-cubic table; ours must leave a table of the same grid alone."""
    vision = encoder(12, (3, 2, 2))
    vision.position.data.normal_()
    assert vision.position_table((3, 2, 2)) is vision.position
    upsampled = vision.position_table((6, 4, 4))[1:].view(6, 4, 4, 12)
    base = vision.position[1:].view(3, 2, 2, 12)
    corners = np.ix_([0, -1], [0, -1], [0, -1])
    torch.testing.assert_close(upsampled[corners], base[corners])


def test_the_patch_embedding_equals_a_strided_convolution():
    vision = encoder(24, (2, 2, 2))
    torch.nn.init.normal_(vision.patch_embedding.weight)
    volume = torch.randn(2, 1, 48, 32, 16)
    kernel = vision.patch_embedding.weight.view(24, 1, 16, 16, 8)
    expected = torch.nn.functional.conv3d(volume, kernel, vision.patch_embedding.bias, stride=(16, 16, 8))
    ours = vision.patch_embedding(vision.patches(volume))
    torch.testing.assert_close(ours, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_a_volume_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"\(33, 32, 16\) voxels is not a multiple of the patch"):
        encoder(24, (2, 2, 2))(torch.zeros(1, 1, 33, 32, 16))


def test_the_full_size_model_has_the_358_released_tensors_with_their_shapes(parity):
    manifest = {key: tuple(shape) for key, shape in _manifest(parity).items()}
    assert len(manifest) == 358
    with torch.device("meta"):
        model = BrgSAModel(BrgSAConfig())
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    heads = {name: shape for name, shape in manifest.items() if IGNORED.match(name.removeprefix(PREFIX))}
    mapped = {rename(name.removeprefix(PREFIX)): shape for name, shape in manifest.items() if name not in heads}
    assert set(mapped) == set(ours)
    for name, shape in mapped.items():
        if name == "vision.position":
            shape = shape[1:]
        if name == "vision.patch_embedding.weight":
            shape = (shape[0], math.prod(shape[1:]))
        assert ours[name] == shape, name
    assert len(heads) == 6  # two heads and the pooler, weight and bias each
    parameters = sum(math.prod(shape) for shape in ours.values()) + sum(math.prod(shape) for shape in heads.values())
    assert parameters == 202_156_032


def _manifest(parity):
    return json.loads((parity / "full_model_manifest.json").read_text())["keys"]


def test_a_fresh_model_starts_as_the_released_code_starts():
    config = BrgSAConfig(
        embedding_size=48,
        vision_width=96,
        vision_heads=2,
        vision_depth=1,
        vision_mlp_size=192,
        bank_size=128,
        text={"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64},
    )
    torch.manual_seed(0)
    model = BrgSAModel(config)
    torch.testing.assert_close(model.bank.rows.T @ model.bank.rows, torch.eye(48), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.vision.position.data, sine_position_table((14, 14, 14), 96))
    assert not model.vision.position.requires_grad
    assert model.vision_projection.bias.abs().max() == 0
    assert abs(model.text.bert.embeddings.word_embeddings.weight.std() - 0.02) < 0.002  # BERT keeps its own start
    xavier = math.sqrt(6 / (96 + 288))
    assert 0.95 * xavier < model.vision.blocks[0].attention.qkv.weight.abs().max() <= xavier


def test_saved_and_loaded_weights_are_equal_bit_for_bit(tiny, io, tmp_path):
    tiny.save_pretrained(tmp_path)
    again = BrgSAModel.from_pretrained(tmp_path).eval()
    assert again.config.patch_size == tiny.config.patch_size
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    # matrix products may round otherwise where the memory is aligned otherwise
    assert_close(again.embed_image(io["x_base"]), tiny.embed_image(io["x_base"]), tolerance=1e-6)


def test_the_class_token_is_the_same_when_the_last_block_skips_the_patches(tiny, io):
    whole, patches = tiny.vision(io["x_big"])
    assert_close(class_token(tiny.vision, io["x_big"]), whole, tolerance=1e-6)
    assert patches.shape[1] == 27


def test_checkpointed_blocks_give_the_same_gradients(parity, tiny, io):
    model = BrgSAModel(tiny.config).eval()
    model.load_state_dict(tiny.state_dict())
    gradients = []
    for model.vision.checkpoint_blocks in (False, True):
        model.zero_grad()
        model.embed_image(io["x_base"]).square().sum().backward()
        gradients.append(model.vision.blocks[0].attention.qkv.weight.grad.clone())
    assert torch.equal(*gradients)
