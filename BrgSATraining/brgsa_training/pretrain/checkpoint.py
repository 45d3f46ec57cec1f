"""Checkpoints: all that training needs to go on as if it had not been cut, in one file of tensors and plain values."""

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from brgsa.errors import BrgSAError, SetupError, UsageError, first_line
from brgsa.files import atomic_path
from brgsa.files.output_folder import MARK, OWN_FILES, remove_files
from brgsa.weights.folder import remove_weights
from brgsa_training.pretrain.recipe import differences

CHECKPOINT_VERSION = 1
LAST, BEST = "last.pt", "best.pt"
HISTORY_FILE, WEIGHTS = "history.csv", "weights"
TRAINING_RUN = "training run"  # kind of output folder


def remove_run(folder: Path) -> None:
    """Delete what a training run wrote into its folder, file by file, and the folder if nothing else lies there."""
    if not (folder / MARK).exists():
        return
    if (folder / WEIGHTS).exists():
        remove_weights(folder / WEIGHTS)
    remove_files(folder, [LAST, BEST, HISTORY_FILE, *OWN_FILES])
    if not any(folder.iterdir()):
        folder.rmdir()


def save_checkpoint(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a checkpoint beside `path` and rename it: a crash or a full disk leaves the one that was there.

    Raises:
        BrgSAError: the disk is full or the folder cannot be written.
    """
    save_tensors(path, {"version": CHECKPOINT_VERSION, **content})


def save_tensors(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values with torch.save, as `save_checkpoint` does."""
    try:
        with atomic_path(path) as temporary:
            torch.save(dict(content), temporary)
    except RuntimeError as error:  # torch's own writer has no OSError for a full disk
        raise BrgSAError(
            f"cannot write {path} ({first_line(error)}). Free some space and go on with --resume auto; "
            "the checkpoint before it is whole."
        ) from error


def load_checkpoint(path: str | os.PathLike, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is run.

    Args:
        mapped: leave the tensors in the file, for a look at the plain values.

    Raises:
        SetupError: the file is missing, damaged, or of another program or version.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files that it is about to refuse
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise SetupError(f"no checkpoint {path}. Give the path of a last.pt or best.pt.") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise SetupError(f"{path} is not a whole checkpoint of this program ({first_line(error)}).") from error
    if not isinstance(content, dict) or content.get("version") != CHECKPOINT_VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise SetupError(f"{path} has version {version!r}, this program reads {CHECKPOINT_VERSION}. Update brgsa.")
    return content


def find_state(
    out: Path, resume: bool | str | os.PathLike, recipe: dict[str, Any], world: int, data: str
) -> dict[str, Any] | None:
    """Read the checkpoint that a run goes on from; None for a run that begins.

    A run that was killed after it wrote best.pt and before it wrote last.pt goes on from best.pt.

    Args:
        out: folder of the run.
        resume: True to go on from OUT/last.pt where there is one, or the path of a checkpoint.
        recipe, world, data: of this run, as in `require_same_run`.

    Raises:
        UsageError: the run is not to be resumed but the folder holds one, or the checkpoint is one of another run.
        SetupError: the checkpoint cannot be read.
    """
    begun = (out / LAST).exists() or (out / BEST).exists()
    if not resume and begun:
        raise UsageError(f"{out} holds a run. Go on with --resume auto, or choose another --out.")
    if not resume or (resume is True and not begun):
        return None
    path = out / LAST if resume is True else Path(resume)
    best = path.with_name(BEST)
    if path.name == LAST and best.exists() and (not path.exists() or _is_further(best, path)):
        path = best
    content = load_checkpoint(path)
    require_same_run(path, content, recipe, world, data)
    return content


def step_of(path: Path) -> int | None:
    """The step of a checkpoint; None where there is none that is whole."""
    try:
        return load_checkpoint(path, mapped=True)["step"]
    except (SetupError, KeyError):
        return None


def _is_further(best: Path, last: Path) -> bool:
    """Whether best.pt is a later state of the run of last.pt."""
    try:
        best, last = load_checkpoint(best, mapped=True), load_checkpoint(last, mapped=True)
        return best["step"] > last["step"] and not differences(best["recipe"], last["recipe"])
    except (SetupError, KeyError):
        return False


def require_same_run(path: object, content: Mapping[str, Any], recipe: dict[str, Any], world: int, data: str) -> None:
    """Check that going on from a checkpoint is the same training.

    Args:
        recipe: `Recipe.to_dict()` of this run.
        world: number of processes of this run.
        data: fingerprint of this run's studies.

    Raises:
        UsageError: another recipe, number of processes, or other data.
    """
    if changed := differences(recipe, content["recipe"]):
        shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise UsageError(f"{path} was written with another recipe: {shown}. Use that recipe or another --out.")
    if content["world"] != world:
        raise UsageError(
            f"{path} was written by {content['world']} process(es), this run has {world}. "
            f"Start it with torchrun --nproc-per-node so that there are {content['world']}."
        )
    if content["data"] != data:
        raise UsageError(f"{path} was written with other captions or volumes. Use those or another --out.")
