"""Read the released checkpoint, a PyTorch Lightning 1.1.4 file, without running anything that is in it.

The layout is described in docs/method.md (section Checkpoint). Only tensors and plain containers are taken out of the
file; every other class that its pickle names (omegaconf, callbacks, or something hostile) becomes an inert placeholder.
"""

import collections
import logging
import pickle
import re
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from brgsa.errors import SetupError, first_line
from brgsa.model import BrgSAConfig, BrgSAModel

log = logging.getLogger(__name__)

PREFIX = "gloria."

# released name -> our name; the numbers of layers pass through
RENAMES = (
    (r"text_encoder\.model\.(embeddings|encoder)\.", r"text.bert.\1."),
    (r"text_encoder\.emb_global\.", "text_projection."),
    (r"img_encoder\.model\.cls_token$", "vision.class_token"),
    (r"img_encoder\.model\.pos_embed$", "vision.position"),
    (r"img_encoder\.model\.patch_embed\.proj\.", "vision.patch_embedding."),
    (r"img_encoder\.model\.blocks\.(\d+)\.norm([12])\.", r"vision.blocks.\1.norm\2."),
    (r"img_encoder\.model\.blocks\.(\d+)\.attn\.", r"vision.blocks.\1.attention."),
    (r"img_encoder\.model\.blocks\.(\d+)\.mlp\.fc1\.", r"vision.blocks.\1.mlp.0."),
    (r"img_encoder\.model\.blocks\.(\d+)\.mlp\.fc2\.", r"vision.blocks.\1.mlp.2."),
    (r"img_encoder\.model\.norm\.", "vision.norm."),
    (r"img_encoder\.global_embedder\.", "vision_projection."),
    (r"dictionarylearning\.dictionary\.weight$", "bank.rows"),
)

# Tensors that no score depends on: two heads that the released code computes and drops, BERT's pooler, and an index
# buffer that older transformers saved.
IGNORED = re.compile(
    r"text_encoder\.(emb_local|model\.pooler\.dense)\.|img_encoder\.local_embedder\.|"
    r"text_encoder\.model\.embeddings\.position_ids$"
)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Return the content of a `torch.save` file with tensors and plain containers only.

    Raises:
        SetupError: the file is missing, damaged or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise SetupError(f"no checkpoint file at {path}. Give the path of the downloaded best.ckpt.")
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and any(name.endswith("constants.pkl") for name in zipfile.ZipFile(path).namelist()):
            raise pickle.UnpicklingError("it is a TorchScript program, not a checkpoint")
        # weights_only=True would refuse the file for the classes in it; the restricted unpickler replaces them instead.
        return torch.load(
            str(path), map_location="cpu", pickle_module=_restricted_pickle(), weights_only=False, mmap=zipped
        )
    except Exception as error:
        # torch raises a dozen kinds here, depending on the byte at which the file goes wrong
        raise SetupError(
            f"cannot read {path} as a PyTorch checkpoint ({first_line(error)}). "
            "The download may be incomplete; get it again."
        ) from error


def convert_state(state: Mapping[str, Any], config: BrgSAConfig, path: str | Path = "checkpoint") -> dict:
    """Map released tensors to a state dict of `BrgSAModel(config)`, float32.

    Args:
        state: released name -> tensor, with or without anything before the last "gloria.".

    Raises:
        SetupError: a tensor is missing, unknown or of another shape; the first few are named.
    """
    renamed, unknown = {}, []
    for key, value in state.items():
        name = key.rpartition(PREFIX)[2]
        if IGNORED.match(name):
            continue
        ours = rename(name)
        if ours is None or not isinstance(value, torch.Tensor):
            unknown.append(key)
        else:
            renamed[ours] = value.float()

    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in BrgSAModel(config).state_dict().items()}
    if "vision.position" in renamed:
        renamed["vision.position"] = renamed["vision.position"].flatten(0, -2)  # (1, 1 + P, W) -> (1 + P, W)
    if "vision.patch_embedding.weight" in renamed:
        renamed["vision.patch_embedding.weight"] = renamed["vision.patch_embedding.weight"].flatten(1)

    unknown += [name for name in renamed if name not in wanted]
    missing = [name for name in wanted if name not in renamed]
    for problem, names in (("lacks", missing), ("has unknown tensors", unknown)):
        if names:
            raise SetupError(
                f"{path} {problem}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}. "
                "It is no BrgSA checkpoint of this size; check that it is the released best.ckpt."
            )
    for name, shape in wanted.items():
        if renamed[name].shape != shape:
            raise SetupError(
                f"{path} holds {name} as {tuple(renamed[name].shape)} instead of {tuple(shape)}. "
                "It is a checkpoint of another model."
            )
    return {name: renamed[name].contiguous() for name in wanted}


def rename(name: str) -> str | None:
    """Our name for a released tensor (without its prefix), or None when it has none."""
    for pattern, replacement in RENAMES:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return None


def config_of(state: Mapping[str, torch.Tensor], path: str | Path = "checkpoint", **known: Any) -> BrgSAConfig:
    """Read the sizes of the model off its tensors.

    The number of heads leaves no trace in the tensors: 64 channels a head, as in the released model, unless `known`
    has `vision_heads` or `text`.

    Raises:
        SetupError: the tensors that tell the sizes are missing.
    """
    named = {rename(key.rpartition(PREFIX)[2]): value for key, value in state.items()}
    try:
        patch = named["vision.patch_embedding.weight"]
        words = named["text.bert.embeddings.word_embeddings.weight"]
        places = named["text.bert.embeddings.position_embeddings.weight"]
        types_ = named["text.bert.embeddings.token_type_embeddings.weight"]
        side = round((named["vision.position"].shape[-2] - 1) ** (1 / 3))
        width = patch.shape[0]
        sizes = {
            "embedding_size": named["bank.rows"].shape[1],
            "bank_size": named["bank.rows"].shape[0],
            "patch_size": tuple(patch.shape[2:]),
            "position_grid": (side, side, side),
            "vision_width": width,
            "vision_depth": _layers(named, r"vision\.blocks\.(\d+)\."),
            "vision_heads": max(1, width // 64),
            "vision_mlp_size": named["vision.blocks.0.mlp.0.weight"].shape[0],
            "text": {
                "vocab_size": words.shape[0],
                "hidden_size": words.shape[1],
                "num_hidden_layers": _layers(named, r"text\.bert\.encoder\.layer\.(\d+)\."),
                "num_attention_heads": max(1, words.shape[1] // 64),
                "intermediate_size": named["text.bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
                "max_position_embeddings": places.shape[0],
                "type_vocab_size": types_.shape[0],
            },
        }
    except (KeyError, IndexError, AttributeError) as error:
        raise SetupError(f"{path} has no tensor for {error}. It is no BrgSA checkpoint.") from error
    text = sizes["text"] | known.get("text", {})
    return BrgSAConfig(**{**sizes, **known, "text": text})


def state_of(checkpoint: Mapping[str, Any], path: str | Path = "checkpoint") -> Mapping[str, torch.Tensor]:
    """Return the tensors of a Lightning checkpoint, or of a flat {name: tensor} file."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise SetupError(f"{path} has no state_dict with tensors. It is not a model checkpoint.")
    return state


def _layers(named: Mapping, pattern: str) -> int:
    return 1 + max((int(match[1]) for name in named if name and (match := re.match(pattern, name))), default=-1)


class Placeholder:
    """Stands for any object of a class that is not allowed: takes whatever the pickle does to it and keeps nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; any other class or function becomes a `Placeholder`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        log.debug("checkpoint names %s.%s, which is not loaded", module, name)
        return type(name.rpartition(".")[2] or "Placeholder", (Placeholder,), {})


def _restricted_pickle() -> types.SimpleNamespace:
    """The part of the `pickle` module that torch.load uses, with the restricted unpickler in it."""

    def load(file, **options):
        return RestrictedUnpickler(file, **options).load()

    return types.SimpleNamespace(
        __name__="restricted_pickle", Unpickler=RestrictedUnpickler, load=load, UnpicklingError=pickle.UnpicklingError
    )
