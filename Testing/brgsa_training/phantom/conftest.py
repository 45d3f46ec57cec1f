"""Recipes with a model so small that a training takes seconds."""

import pytest
import yaml

MODEL = {
    "model": {"patch_size": [16, 16, 16], "position_grid": [4, 3, 4], "vision_width": 24, "vision_depth": 1,
              "vision_heads": 2, "vision_mlp_size": 48, "embedding_size": 16, "bank_size": 20},
    "start": {"data_dependent": 16, "principal": 0},
}  # fmt: skip


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory):
    """Writes a recipe file: small_recipe(base, phantoms, training) -> path."""

    def write(base, phantoms, training):
        path = tmp_path_factory.mktemp("recipe") / "small.yaml"
        recipe = {"base": base, "phantoms": phantoms, **MODEL, "training": {"batch_size": 8, **training}}
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return path

    return write
