"""Recipe files: what a recipe takes from its base, and what is said of files that cannot be read."""

import pytest

from brgsa.errors import InputError, UsageError
from brgsa_training.cli import main
from brgsa_training.pretrain.checkpoint import load_checkpoint
from brgsa_training.pretrain.command import parse
from brgsa_training.pretrain.image_trainer import ImageRecipe
from brgsa_training.pretrain.recipe import Recipe, flat
from brgsa_training.pretrain.recipe_file import merge, read_recipe


def values(name, kind=Recipe, *options):
    return flat(parse(["--config", str(name), *options], kind)[0].to_dict())


def changes(name, base, kind=Recipe):
    ours, theirs = values(name, kind), values(base, kind)
    assert ours.keys() == theirs.keys()
    return {key: (theirs[key], value) for key, value in ours.items() if value != theirs[key]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no-bank", {"loss.reconstruction": (0.5, 0.0), "loss.bank_contrastive": (1.0, 0.0)}),
        ("clip", {"loss.reconstruction": (0.5, 0.0), "loss.bank_contrastive": (1.0, 0.0)}),
        ("no-reconstruction", {"loss.reconstruction": (0.5, 0.0)}),
        ("no-summaries", {}),
    ],
)
def test_an_ablation_differs_from_the_released_recipe_in_its_loss_only(name, expected):
    assert changes(name, "brgsa") == expected


def test_the_quick_phantom_recipe_is_shorter_and_otherwise_the_same():
    ours, theirs = flat(read_recipe("phantom-quick")), flat(read_recipe("phantom"))
    assert ours.keys() == theirs.keys()
    assert {name: (theirs[name], value) for name, value in ours.items() if value != theirs[name]} == {
        "phantoms.train": (8000, 2000),
        "phantoms.validation": (500, 200),
        "phantoms.test": (2000, 500),
        "phantoms.long_steps": (300, 150),
        "training.steps": (400, 150),
        "training.validate_every": (100, 75),
        "training.save_every": (100, 75),
    }


def test_values_are_merged_at_any_depth_and_lists_and_null_replace():
    base = {"a": {"b": {"c": 1, "d": 2}, "list": [1, 2, 3]}, "e": {"f": 1}, "g": 1}
    values = {"a": {"b": {"c": 5}, "list": [4]}, "e": None, "g": {"h": 2}}
    assert merge(values, base) == {"a": {"b": {"c": 5, "d": 2}, "list": [4]}, "e": None, "g": {"h": 2}}
    assert base["a"]["b"] == {"c": 1, "d": 2}


@pytest.fixture
def recipes(tmp_path):
    """Three files: lab/mine.yaml on ../shared.yaml on no-bank of the repository."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "shared.yaml").write_text(
        "base: no-bank\noptimizer: {lr: 3e-4, clip: 1}\nmodel: {text: {type_vocab_size: 1}}\n"
    )
    (tmp_path / "lab" / "mine.yaml").write_text("base: ../shared.yaml\noptimizer: {lr: 2.0e-4}\ndata: {crop: null}\n")
    return tmp_path


def test_a_base_is_a_name_or_a_path_beside_the_file_and_may_have_a_base(recipes, monkeypatch):
    monkeypatch.chdir(recipes / "lab")
    for name in ("mine.yaml", recipes / "lab" / "mine.yaml"):
        assert changes(name, "no-bank") == {
            "optimizer.lr": (5e-5, 2e-4),
            "optimizer.clip": (0.25, 1.0),
            "model.text.type_vocab_size": (2, 1),
            "data.crop": ([224, 224, 112], None),
        }


def test_options_win_over_the_recipe_and_a_later_recipe_over_an_earlier_one(recipes):
    mine = recipes / "lab" / "mine.yaml"
    assert values(mine, Recipe, "--optimizer.lr", "0.1")["optimizer.lr"] == 0.1
    assert values(mine, Recipe, f"--config={recipes / 'shared.yaml'}")["optimizer.lr"] == 3e-4


def test_an_image_recipe_has_a_base_too(tmp_path):
    (tmp_path / "image.yaml").write_text("training: {steps: 7, seed: 3}\n")
    (tmp_path / "long.yaml").write_text("base: image.yaml\ntraining: {steps: 70}\n")
    assert changes(tmp_path / "long.yaml", tmp_path / "image.yaml", ImageRecipe) == {"training.steps": (7, 70)}


def test_the_recipe_that_is_printed_is_whole(recipes, capsys):
    with pytest.raises(SystemExit):
        parse(["--config", str(recipes / "lab" / "mine.yaml"), "--print_config"])
    (recipes / "printed.yaml").write_text(capsys.readouterr().out)
    assert "base" not in read_recipe(str(recipes / "printed.yaml"))
    assert values(recipes / "printed.yaml") == values(recipes / "lab" / "mine.yaml")


def test_the_checkpoint_keeps_the_whole_recipe(small_run):
    child = small_run.recipe_file.parent / "child.yaml"
    child.write_text(f"base: {small_run.recipe_file.name}\ntraining: {{epochs: 1}}\nloss: {{scale: 7.0}}\n")
    assert main(["pretrain", *small_run.options, "--config", str(child)]) == 0
    saved = flat(load_checkpoint(small_run.out / "last.pt")["recipe"])
    assert (saved["training.epochs"], saved["loss.scale"], saved["model.bank_size"]) == (1, 7.0, 20)
    assert not [name for name in saved if "base" in name]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("base: nothing\n", 2, "bad.yaml: base: no recipe 'nothing': neither a file nor one of brgsa, clip"),
        ("base: bad.yaml\n", 2, "recipes are each other's base: bad.yaml -> bad.yaml. Take"),
        ("base: other.yaml\n", 2, "recipes are each other's base: bad.yaml -> other.yaml -> bad.yaml. Take"),
        ("base: [brgsa, clip]\n", 3, "bad.yaml: base is ['brgsa', 'clip'], not the name or path"),
        ("base: broken.yaml\n", 3, "broken.yaml, line 2: not YAML"),
        ("base: brgsa\nloss: 3\n", 3, "bad.yaml: loss is 3, not a group of values. Give some of contrastive, "),
        ("base: brgsa\nmodel:\n  text:\n", 3, "bad.yaml: model.text is None, not a group of values"),
        ("base: brgsa\noptimizer: {momentum: 1}\n", 2, "does not accept option 'momentum'"),
        ("just words\n", 3, "bad.yaml is not a recipe"),
        ("\x00", 3, "bad.yaml"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused_in_one_line(tmp_path, capsys, content, code, message):
    (tmp_path / "other.yaml").write_text("base: ./bad.yaml\n")
    (tmp_path / "broken.yaml").write_text("data: {\n")
    (tmp_path / "bad.yaml").write_text(content)
    assert main(["pretrain", "--config", str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "out")]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_recipe_in_another_encoding_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"out: \xff\xfe\n")
    with pytest.raises(InputError, match=r"cannot read the recipe .*bad\.yaml"):
        read_recipe(str(tmp_path / "bad.yaml"))
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe(str(tmp_path))
