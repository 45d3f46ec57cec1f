"""Weights folders and the import of the released checkpoint, whole, damaged and hostile."""

import json
import os
import shutil
import subprocess
import sys
import types
import zipfile

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from brgsa.errors import BrgSAError, SetupError
from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa.preprocess import PreprocessingPlan
from brgsa.weights import folder as weights
from brgsa.weights import released as convert

TINY = {"vision_heads": 4, "text_layers": 4, "text_length": 24}  # what a checkpoint's tensors do not tell


def save_lightning(path, state):
    """Write what pytorch-lightning 1.1.4 dumps, with a callback class that no reader can import."""
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint")
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = callback
    sys.modules.update(modules)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    settings = OmegaConf.create({"model": {"vision": {"base": "vitb_3D"}}, "output_dir": "/data2/out"})
    try:
        torch.save(
            {
                "epoch": 38,
                "global_step": 14703,
                "pytorch-lightning_version": "1.1.4",
                "callbacks": {callback: {"best_model_score": torch.tensor(1.5), "best_model_path": "/data2/x.ckpt"}},
                "optimizer_states": [optimizer.state_dict()],
                "lr_schedulers": [{"best": 1.0, "factor": 0.5, "mode": "min"}],
                "native_amp_scaling_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
                "state_dict": state,
                "hparams_name": "cfg",
                "hyper_parameters": settings,
                "hparams_type": type(settings),
            },
            path,
        )
    finally:
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def text_folder(parity, tmp_path_factory):
    folder = tmp_path_factory.mktemp("M3AE_CXRBERT")
    shutil.copy(parity / "tiny_vocab.txt", folder / "vocab.txt")
    shutil.copy(parity / "tiny_bert_config.json", folder / "config.json")
    return folder


@pytest.fixture(scope="module")
def released_state(parity):
    state = load_file(parity / "tiny_state_dict.safetensors")
    return state | {"gloria.text_encoder.model.embeddings.position_ids": torch.arange(64)[None]}


@pytest.fixture
def tiny_model():
    bert = {"vocab_size": 85, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    return BrgSAModel(
        BrgSAConfig(
            embedding_size=32,
            position_grid=(2, 2, 2),
            vision_width=48,
            vision_heads=4,
            vision_depth=2,
            vision_mlp_size=96,
            text={**bert, "intermediate_size": 64, "max_position_embeddings": 64},
            bank_size=64,
        )
    )


@pytest.fixture
def folder(tiny_model, text_folder, tmp_path):
    return weights.save_weights(
        tmp_path / "tiny", tiny_model, text_folder / "vocab.txt", PreprocessingPlan(), "# card\n", "licence\n"
    )


def test_a_loaded_model_trains_what_a_new_one_trains():
    loaded = weights.open_weights("phantom").load_model()
    new = type(loaded)(loaded.config)
    trained = [{name: row.requires_grad for name, row in model.named_parameters()} for model in (loaded, new)]
    assert trained[0] == trained[1] and not trained[0]["vision.position"]


def test_the_released_checkpoint_becomes_a_weights_folder_with_equal_tensors(released_state, text_folder, tmp_path):
    save_lightning(tmp_path / "best.ckpt", released_state)
    made = weights.import_released(tmp_path / "best.ckpt", text_folder, tmp_path / "out", **TINY)
    opened = weights.open_weights(made)
    model = opened.load_model()
    prefix = "gloria.img_encoder.model."
    assert torch.equal(model.bank.rows.data, released_state["gloria.dictionarylearning.dictionary.weight"])
    assert torch.equal(model.vision.position.data, released_state[prefix + "pos_embed"][0])
    kernel = released_state[prefix + "patch_embed.proj.weight"]
    assert torch.equal(model.vision.patch_embedding.weight.data, kernel.flatten(1))
    assert model.config.vision_mlp_size == 192 and model.config.text["num_attention_heads"] == 4
    assert opened.plan == PreprocessingPlan() and opened.trained and opened.notice is None


def test_a_flat_file_of_tensors_is_read_too(released_state, tmp_path):
    torch.save(released_state, tmp_path / "flat.pt")
    state = convert.state_of(convert.read_checkpoint(tmp_path / "flat.pt"))
    assert set(state) == set(released_state)


class Bomb:
    """Unpickling this with a permissive reader would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(released_state, tmp_path, zipped):
    marker = tmp_path / "ran"
    content = {"state_dict": dict(released_state), "callbacks": {"x": Bomb(marker)}, "more": [Bomb(marker)]}
    torch.save(content, tmp_path / "hostile.ckpt", _use_new_zipfile_serialization=zipped)
    state = convert.state_of(convert.read_checkpoint(tmp_path / "hostile.ckpt"))
    assert not marker.exists()
    assert set(state) == set(released_state)
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)  # the permissive reader does run it
    assert marker.exists()


def test_a_bomb_in_place_of_a_tensor_is_named_and_does_not_run(released_state, tmp_path):
    marker = tmp_path / "ran"
    key = "gloria.img_encoder.model.cls_token"
    torch.save({"state_dict": {**released_state, key: Bomb(marker)}}, tmp_path / "hostile.ckpt")
    state = convert.state_of(convert.read_checkpoint(tmp_path / "hostile.ckpt"))
    with pytest.raises(SetupError, match="class_token"):
        convert.convert_state(state, convert.config_of(state, **TINY))
    assert not marker.exists()


def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "program.pt"))
    with pytest.raises(SetupError, match=r"program\.pt .*TorchScript"):
        convert.read_checkpoint(tmp_path / "program.pt")


@pytest.mark.parametrize("kept", [0, 10, 1000, -200])
def test_a_truncated_checkpoint_is_named_in_one_line(released_state, tmp_path, kept):
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": released_state}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SetupError) as caught:
        convert.read_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_tensor_is_named(released_state, text_folder, tmp_path):
    del released_state["gloria.img_encoder.model.blocks.1.attn.qkv.weight"]
    torch.save({"state_dict": released_state}, tmp_path / "best.ckpt")
    with pytest.raises(SetupError, match=r"best\.ckpt lacks: vision\.blocks\.1\.attention\.qkv\.weight"):
        weights.import_released(tmp_path / "best.ckpt", text_folder, tmp_path / "out", **TINY)
    assert not (tmp_path / "out").exists()
    released_state["gloria.img_encoder.model.blocks.1.attn.qkv.weight"] = torch.zeros(144, 48)


def test_an_unknown_tensor_is_named(released_state):
    state = released_state | {"gloria.img_encoder.model.extra.weight": torch.zeros(2)}
    with pytest.raises(SetupError, match=r"unknown tensors: gloria\.img_encoder\.model\.extra\.weight"):
        convert.convert_state(state, convert.config_of(state, **TINY))


def test_a_tensor_of_another_shape_is_named(released_state):
    state = released_state | {"gloria.img_encoder.global_embedder.weight": torch.zeros(32, 40)}
    with pytest.raises(SetupError, match=r"vision_projection\.weight as \(32, 40\) instead of \(32, 48\)"):
        convert.convert_state(state, convert.config_of(state, **TINY))


def test_a_file_without_a_model_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.ckpt")
    with pytest.raises(SetupError, match="no state_dict"):
        convert.state_of(convert.read_checkpoint(tmp_path / "x.ckpt"), tmp_path / "x.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "y.ckpt")
    with pytest.raises(SetupError, match="no BrgSA checkpoint"):
        convert.config_of(convert.state_of(convert.read_checkpoint(tmp_path / "y.ckpt")))


def test_a_vocabulary_of_another_model_is_refused(released_state, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(196))]))
    torch.save({"state_dict": released_state}, tmp_path / "best.ckpt")
    with pytest.raises(SetupError, match="200 word pieces"):
        weights.import_released(tmp_path / "best.ckpt", tmp_path, tmp_path / "out", **TINY)


def test_a_piece_that_is_a_line_break_of_another_kind_is_one_piece(released_state, text_folder, tmp_path):
    words = (text_folder / "vocab.txt").read_text().removesuffix("\n").split("\n")
    words[-1] = "\u2028"
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    shutil.copy(text_folder / "config.json", tmp_path)
    torch.save({"state_dict": released_state}, tmp_path / "best.ckpt")
    assert weights.import_released(tmp_path / "best.ckpt", tmp_path, tmp_path / "out", **TINY)


def test_a_text_configuration_adds_to_the_sizes_of_the_tensors(released_state):
    config = convert.config_of(released_state, **(TINY | {"text": {"num_attention_heads": 4}}))
    assert config.text["num_attention_heads"] == 4 and config.text["vocab_size"] == 85


def test_a_checkpoint_without_blocks_is_refused(released_state):
    state = {name: tensor for name, tensor in released_state.items() if ".blocks." not in name}
    with pytest.raises(SetupError, match="no BrgSA checkpoint"):
        convert.config_of(state)


def test_a_saved_folder_opens_and_verifies(folder):
    assert weights.verify(folder, fresh=True) == []
    opened = weights.open_weights(folder)
    assert opened.name == "tiny" and len(opened.checksum) == 64
    assert opened.describe()["bytes"] > 100_000
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # nobody is shut out of one file


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt", "README.md"])
def test_a_changed_file_is_named(folder, name):
    weights.open_weights(folder)  # so that the check of this machine has seen the whole file
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(SetupError, match=rf"{name} differs from its checksum"):
        weights.open_weights(folder)


def test_a_missing_file_and_a_missing_list_are_named(folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(SetupError, match=r"vocab\.txt is missing"):
        weights.open_weights(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(SetupError, match="SHA256SUMS is missing"):
        weights.open_weights(folder)


def test_a_calibration_may_be_added_later(folder):
    before = weights.open_weights(folder).checksum
    (folder / "calibration.json").write_text('{"version": 1, "abnormalities": {}, "provenance": {}}')
    assert weights.open_weights(folder).checksum == before


def test_a_model_that_does_not_fit_its_configuration_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"bank_size": 128}))
    weights.write_checksums(folder)
    with pytest.raises(SetupError) as caught:
        weights.open_weights(folder).load_model()
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_an_existing_folder_is_not_overwritten(folder, tiny_model, text_folder):
    with pytest.raises(BrgSAError, match="exists and is not empty"):
        weights.save_weights(folder, tiny_model, text_folder / "vocab.txt", PreprocessingPlan(), "", "")


def test_a_bundle_travels_and_opens(folder, tmp_path):
    bundle = weights.export_bundle(folder, tmp_path / "a b" / "bündel.zip")
    again = weights.open_weights(weights.import_bundle(bundle, tmp_path / "again"))
    assert again.checksum == weights.open_weights(folder).checksum


def test_a_damaged_or_hostile_bundle_leaves_nothing(folder, tmp_path):
    bundle = weights.export_bundle(folder, tmp_path / "bundle.zip")
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../evil.txt", "x")
    with pytest.raises(SetupError, match=r"evil\.txt"):
        weights.import_bundle(bundle, tmp_path / "again")
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:5000])
    with pytest.raises(SetupError, match=r"cut\.zip"):
        weights.import_bundle(tmp_path / "cut.zip", tmp_path / "again")
    assert not (tmp_path / "again").exists() and not (tmp_path / "evil.txt").exists()
    assert not list(tmp_path.glob(".again*"))


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (8, 1), (10, 99)])
def test_a_bundle_with_a_bad_entry_is_refused_in_one_line(folder, tmp_path, offset, value):
    """A central directory that is no more one, an encrypted entry, an unknown compression."""
    data = bytearray(weights.export_bundle(folder, tmp_path / "bundle.zip").read_bytes())
    data[data.rfind(b"PK\1\2") + offset] = value
    if offset == 8:
        data[data.rfind(b"PK\3\4") + 6] = value  # the entry's own header says so too
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(SetupError, match=r"cannot read .*bad\.zip"):
        weights.import_bundle(tmp_path / "bad.zip", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_files_from_before_1980_are_bundled_too(folder, tmp_path):
    os.utime(folder / "README.md", (0, 0))
    assert weights.export_bundle(folder, tmp_path / "bundle.zip").exists()


def test_unknown_weights_and_weights_that_are_not_shipped_say_what_to_do():
    with pytest.raises(SetupError, match="brgsa weights list"):
        weights.open_weights("nonesuch")
    with pytest.raises(SetupError, match="brgsa weights import"):
        weights.open_weights("brgsa")


def test_the_shipped_weights_are_whole():
    for row in weights.registry().values():
        if row.folder:
            assert weights.verify(row.folder, fresh=True) == []


@pytest.mark.slow
def test_a_full_size_checkpoint_is_imported_by_the_command(parity, tmp_path):
    """Once at the real size, 358 tensors, with optimizer state: 2.4 GB on disk."""
    manifest = json.loads((parity / "full_model_manifest.json").read_text())["keys"]
    generator = torch.Generator().manual_seed(0)
    state = {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in manifest.items()}
    save_lightning(tmp_path / "best.ckpt", state)
    text = tmp_path / "text"
    text.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(30517))]
    (text / "vocab.txt").write_text("\n".join(pieces) + "\n")
    command = [sys.executable, "-m", "brgsa", "weights", "import", str(tmp_path / "best.ckpt")]
    done = subprocess.run(
        [*command, "--text", str(text), "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    model = weights.open_weights(tmp_path / "out").load_model()
    assert model.config.vision_heads == 12 and model.config.text_length == 97
    assert torch.equal(model.bank.rows.data, state["gloria.dictionarylearning.dictionary.weight"])


def rewrite(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    weights.write_checksums(folder)


def test_code_that_a_configuration_names_is_not_asked_for(folder, monkeypatch):
    """No socket is opened, and the attention is the one of this software."""
    config = json.loads((folder / "config.json").read_text())
    text = config["text"] | {"attn_implementation": "org/kernel", "_attn_implementation": "org/kernel"}
    hostile = {
        "attn_implementation": "org/kernel",
        "_attn_implementation": "org/kernel",
        "auto_map": {"AutoConfig": "org/code--config.Config", "AutoModel": "org/code--model.Model"},
        "custom_pipelines": {"x": {"impl": "org.code"}},
        "quantization_config": {"quant_method": "gptq"},
        "_name_or_path": "org/model",
        "text": text,
    }
    rewrite(folder, "config.json", config | hostile)
    rewrite(folder, "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["org/code--t.T", None]}})

    def refuse(*arguments):
        raise AssertionError(f"a socket was opened: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(f"socket.socket.{name}", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    opened = weights.open_weights(folder)
    assert "org/" not in json.dumps(dict(opened.config))
    model = opened.load_model()
    assert model.text.bert.config._attn_implementation == "sdpa"


HOSTILE_JSON = [
    b"",
    b"[]",
    b"null",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b'{"bank_size": ' + b"9" * 5000 + b"}",
    b'{"version": NaN, "bank_size": NaN}',
    b'{"version": 1e999, "bank_size": 1e999}',
    b'{"version": [1], "bank_size": [1]}',
    b'{"bank_size": 1000000000000, "version": {}}',
    b'{"text": 3, "version": "1"}',
    b'{"text": {"vocab_size": -1}, "version": null}',
]


@pytest.mark.parametrize("content", HOSTILE_JSON, ids=range(len(HOSTILE_JSON)))
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "calibration.json"])
def test_hostile_json_in_a_weights_folder_is_one_sentence(folder, in_process, name, content):
    from brgsa.calibration import Calibration

    rewrite(folder, name, content)
    with pytest.raises(SetupError) as caught:
        opened = weights.open_weights(folder)
        Calibration.load(folder)
        opened.load_model()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(folder) in str(caught.value)


@pytest.mark.parametrize("length", [0, 1 << 40, (1 << 64) - 1, 2])
def test_a_hostile_header_of_tensors_is_one_sentence(folder, length):
    path = folder / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    weights.write_checksums(folder)
    with pytest.raises(SetupError) as caught:
        weights.open_weights(folder).load_model()
    assert "\n" not in str(caught.value)


def test_what_a_bundle_does_not_list_is_dropped(folder, tmp_path):
    bundle = weights.export_bundle(folder, tmp_path / "bundle.zip")
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("modeling.py", "import os")
        archive.writestr("adapter_config.json", "{}")
    made = weights.import_bundle(bundle, tmp_path / "again")
    assert {path.name for path in made.iterdir()} == {path.name for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "part"),
    [("vocab.txt", "twice"), ("VOCAB.txt", "twice"), ("C:x", "a path"), ("link", "a link"), ("bomb", "grow")],
)
def test_a_hostile_entry_of_a_bundle_is_refused_before_anything_is_unpacked(folder, tmp_path, name, part):
    bundle = weights.export_bundle(folder, tmp_path / "bundle.zip")
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    if name == "link":
        entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(entry, b"\0" * (80_000_000 if name == "bomb" else 10))
    with pytest.raises(SetupError, match=part):
        weights.import_bundle(bundle, tmp_path / "again")
    assert not (tmp_path / "again").exists()
