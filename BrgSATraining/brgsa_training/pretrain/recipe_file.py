"""Recipe files: YAML, each with what it changes of the recipe that its key `base` names.

base: brgsa                # a recipe of the repository, or a path relative to this file
loss:
  reconstruction: 0.0
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from brgsa.errors import InputError, UsageError, first_line

RECIPES = Path(__file__).parents[1] / "recipes"


def recipe_path(name: str, folder: Path = Path()) -> Path:
    """The file of a recipe, given its path (relative to `folder`) or the bare name of one of the repository.

    Raises:
        UsageError: neither.
    """
    if (folder / name).is_file():
        return folder / name
    known = RECIPES / f"{name}.yaml"
    if known.is_file():
        return known
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml"))) or "none"
    raise UsageError(f"no recipe {name!r}: neither a file nor one of {names}.")


def read_recipe(name: str) -> dict[str, Any]:
    """The values of a recipe laid over those of its base, of the base's base, and so on.

    Args:
        name: as for `recipe_path`.

    Raises:
        UsageError: the recipe or a base is not found, or a recipe is its own base in the end.
        InputError: a file is not a recipe.
    """
    files, layers = [recipe_path(name)], []
    while True:
        values = _read(files[-1])
        base = values.pop("base", None)
        layers.append(values)
        if base is None:
            break
        files.append(_base_path(base, files[-1]))
        if files[-1].resolve() in (path.resolve() for path in files[:-1]):
            chain = " -> ".join(path.name for path in files)
            raise UsageError(f"recipes are each other's base: {chain}. Take `base` out of one of them.")
    merged: dict[str, Any] = {}
    for values in reversed(layers):
        merged = merge(values, merged)
    return merged


def require_groups(name: str, values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> None:
    """Check that what is a group of values in `defaults` is one in the recipe called `name` too.

    Raises:
        InputError: it is a single value, or nothing.
    """
    for key, group in defaults.items():
        if isinstance(group, Mapping) and key in values:
            if not isinstance(values[key], Mapping):
                raise InputError(
                    f"recipe {name}: {prefix}{key} is {values[key]!r}, not a group of values. Give some of "
                    f"{', '.join(group)} below it, or take it out."
                )
            require_groups(name, values[key], group, f"{prefix}{key}.")


def merge(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of both; where both have one, that of `values`. Lists are replaced as a whole."""
    both = {
        name: merge(value, base[name])
        for name, value in values.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **values, **both}


def _base_path(base: Any, recipe: Path) -> Path:
    if not isinstance(base, str):
        raise InputError(f"{recipe}: base is {base!r}, not the name or path of a recipe.")
    try:
        return recipe_path(base, recipe.parent)
    except UsageError as error:
        raise UsageError(f"{recipe}: base: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the recipe {path}: {first_line(error)}.") from error
    except yaml.YAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise InputError(
            f"{path}{where}: not YAML ({getattr(error, 'problem', None) or first_line(error)})."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"{path} is not a recipe: a recipe has lines like `optimizer:` with `  lr: 1.0e-4` below.")
    return values
