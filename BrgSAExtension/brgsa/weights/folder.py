"""Weights: a folder that can score scans, its checksums, and the table of those known by name.

config.json  model.safetensors  vocab.txt  preprocessor_config.json  README.md (model card)  LICENSE  SHA256SUMS
calibration.json (optional, written later by `brgsa-training calibrate`, so not in SHA256SUMS)
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brgsa.calibration import FILE_NAME
from brgsa.errors import BrgSAError, OutOfMemoryError, SetupError, UsageError, first_line
from brgsa.files import atomic_folder, atomic_path, file_sha256, file_state, read_json, write_json
from brgsa.files.embedding_cache import cache_folder
from brgsa.files.output_folder import remove_files
from brgsa.preprocess import PreprocessingPlan
from brgsa.prompts import read_vocabulary

if TYPE_CHECKING:
    from brgsa.model import BrgSAModel

CHECKSUMS = "SHA256SUMS"
REQUIRED = ("config.json", "model.safetensors", "vocab.txt", "preprocessor_config.json", "README.md", "LICENSE")
PLAN = "preprocessor_config.json"
# What a weights folder may say about its model; anything else in config.json is dropped. transformers would take the
# name of a class or of an attention from it, and fetch and run code by that name.
SIZES = (
    "embedding_size",
    "vision_width",
    "vision_depth",
    "vision_heads",
    "vision_mlp_size",
    "text_layers",
    "text_length",
)
SIZES += ("bank_size",)
TEXT_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
TEXT_SIZES += ("max_position_embeddings", "type_vocab_size")
TEXT_NUMBERS = ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob")
LARGEST_SIZE = 200_000
# Tensors hardly compress, so a bundle that grows more than this when unpacked is a trap.
MOST_GROWTH, SMALL_BUNDLE = 4, 50_000_000
DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class RegisteredWeights:
    """A row of `data/weights.json`: weights that can be asked for by name."""

    name: str
    description: str
    licence: str
    folder: Path | None  # None: not shipped; `how_to_get` says where from
    how_to_get: str


def registry() -> dict[str, RegisteredWeights]:
    """The weights known by name."""
    rows = json.loads((DATA / "weights.json").read_text(encoding="utf-8"))["weights"]
    return {
        row["name"]: RegisteredWeights(
            row["name"],
            row["description"],
            row["licence"],
            DATA / row["folder"] if row["folder"] else None,
            row["how_to_get"],
        )
        for row in rows
    }


@dataclass(frozen=True)
class Weights:
    """A verified weights folder.

    Attributes:
        name: registered name, or the folder's own name.
        folder: where it is.
        config: content of config.json.
        plan: the preprocessing that the model was trained with.
        checksum: SHA-256 of its SHA256SUMS, which stands for all its files but the calibration.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    plan: PreprocessingPlan
    checksum: str

    @property
    def trained(self) -> bool:
        return bool(self.config.get("trained", True))

    @property
    def notice(self) -> str | None:
        """What must be said wherever the scores of these weights are shown, or None."""
        if not self.trained:
            return "untrained: random weights, the scores mean nothing"
        return self.config.get("notice")

    @property
    def vocabulary(self) -> Path:
        return self.folder / "vocab.txt"

    def load_model(self) -> "BrgSAModel":
        """Read the model (float32, CPU, eval mode).

        Raises:
            SetupError: the tensors do not fit the configuration.
            OutOfMemoryError: they do not fit into memory.
        """
        import transformers

        from brgsa.device import out_of_memory
        from brgsa.model import BrgSAConfig, BrgSAModel

        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity(transformers.logging.CRITICAL)
        transformers.logging.disable_progress_bar()
        try:
            with out_of_memory("cpu"), _offline():
                model, report = BrgSAModel.from_pretrained(
                    self.folder,
                    config=BrgSAConfig(**self.config),
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except OutOfMemoryError:
            raise
        except Exception as error:
            # safetensors, JSON and shape errors all come out of here with long texts
            raise SetupError(f"{self.folder}: the model cannot be read ({first_line(error)}). {_REPAIR}") from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(map(str, report.get(problem) or ())):
                raise SetupError(f"{self.folder}: {problem.replace('_', ' ')}: {', '.join(names[:3])}. {_REPAIR}")
        model.vision.position.requires_grad_(False)  # which from_pretrained sets for every tensor that it loads
        return model.eval()

    def describe(self) -> dict[str, Any]:
        """What `brgsa weights info` shows."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "checksum": self.checksum,
            "trained": self.trained,
            "notice": self.notice,
            "bytes": sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
            "calibrated": (self.folder / FILE_NAME).exists(),
            "preprocessing": self.plan.to_dict(),
            "model": {k: v for k, v in self.config.items() if not k.startswith(("_", "transformers"))},
        }


def _known(content: Any) -> dict[str, Any]:
    """What this software knows of a config.json.

    Raises:
        ValueError: a value of it makes no sense.
    """
    if not isinstance(content, dict) or not isinstance(content.get("text", {}), dict):
        raise ValueError("it is no JSON object, or its text encoder is none")
    text = content.get("text", {})
    known = {key: _size(key, content[key]) for key in SIZES if key in content}
    for key in ("patch_size", "position_grid"):
        if key in content:
            if not isinstance(content[key], list) or len(content[key]) != 3:
                raise ValueError(f"{key} is not three numbers")
            known[key] = [_size(key, value) for value in content[key]]
    known["text"] = {key: _size(key, text[key]) for key in TEXT_SIZES if key in text}
    for key in TEXT_NUMBERS:
        if key in text:
            if isinstance(text[key], bool) or not isinstance(text[key], int | float) or not 0 <= text[key] < 1:
                raise ValueError(f"{key} is not a number from 0 to 1")
            known["text"][key] = text[key]
    if "hidden_act" in text:
        if text["hidden_act"] not in ("gelu", "relu", "gelu_new"):
            raise ValueError("hidden_act is none of gelu, relu, gelu_new")
        known["text"]["hidden_act"] = text["hidden_act"]
    known["trained"] = content.get("trained", True)
    if not isinstance(known["trained"], bool):
        raise ValueError("trained is not true or false")
    if (notice := content.get("notice")) is not None:
        if not isinstance(notice, str) or len(notice) > 500:
            raise ValueError("notice is not a text of at most 500 letters")
        known["notice"] = " ".join(notice.split())
    return known


def _size(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
        raise ValueError(f"{key} is not a whole number from 1 to {LARGEST_SIZE:,}")
    return value


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keep the libraries below transformers from a network, whatever a folder names."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


_REPAIR = "Import or copy the weights again; `brgsa weights verify` says which file is damaged."


def open_weights(name_or_folder: str | os.PathLike) -> Weights:
    """Find weights by name or folder and check that every file is whole.

    Raises:
        SetupError: no such weights, a file is missing or differs from its checksum.
    """
    name, folder = locate(str(name_or_folder))
    problems = verify(folder)
    if problems:
        raise SetupError(f"weights {folder}: {problems[0]}. {_REPAIR}")
    try:
        config = _known(read_json(folder / "config.json"))
    except (OSError, ValueError) as error:
        raise SetupError(f"{folder / 'config.json'} cannot be used ({first_line(error)}). {_REPAIR}") from error
    plan = PreprocessingPlan.load(folder / PLAN)
    checksum = hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()
    return Weights(name, folder, config, plan, checksum)


def verify(folder: Path, fresh: bool = False) -> list[str]:
    """Compare every file with SHA256SUMS; return what is wrong, one short sentence each.

    A file is read again only when it is another than at the last check on this machine, see `files.file_state`.

    Args:
        fresh: read every byte whatever the last check said.
    """
    if not (folder / CHECKSUMS).is_file():
        return [f"{CHECKSUMS} is missing"]
    known = {} if fresh else _read_verified()
    sums, problems = _read_checksums(folder)
    for name in REQUIRED:
        if name not in sums:
            problems.append(f"{name} has no line in {CHECKSUMS}")
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        state = [*file_state(path.stat()), digest]
        if known.get(str(path.resolve())) == state:
            continue
        if file_sha256(path) != digest:
            problems.append(f"{name} differs from its checksum")
        else:
            known[str(path.resolve())] = state
    if not problems:
        _write_verified(known)
    return problems


def save_weights(
    folder: str | os.PathLike,
    model: "BrgSAModel",
    vocabulary: str | os.PathLike,
    plan: PreprocessingPlan,
    card: str,
    licence: str,
) -> Path:
    """Write a weights folder beside `folder` and rename it.

    Args:
        vocabulary: WordPiece vocab.txt, one piece a line.
        card: Markdown of the model card.
        licence: text of the licence that the weights come under.

    Raises:
        BrgSAError: the folder exists already and is not empty, or cannot be written.
    """
    folder = Path(folder)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        shutil.copyfile(vocabulary, temporary / "vocab.txt")
        write_json(
            temporary / "tokenizer_config.json",
            {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": model.config.text_length},
        )
        plan.save(temporary / PLAN)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        (temporary / "LICENSE").write_text(licence, encoding="utf-8")
        # transformers leaves the tensors readable by their owner only; all files get the mode of this one
        (temporary / "model.safetensors").chmod((temporary / "LICENSE").stat().st_mode)
        write_checksums(temporary)
    return folder


def _read_checksums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The checksums of SHA256SUMS by file name, and a sentence for each line that is none."""
    sums, problems = {}, []
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).name != name:
            problems.append(f"{CHECKSUMS} has a line that is not a checksum: {line[:60]!r}")
            continue
        sums[name] = digest
    return sums, problems


def _own_files(folder: Path) -> list[str]:
    """The files of a weights folder that this software wrote; none where it is not a weights folder."""
    listed = _read_checksums(folder)[0] if (folder / CHECKSUMS).is_file() else {}
    return [*listed, FILE_NAME, CHECKSUMS] if set(REQUIRED) <= set(listed) else []


def require_replaceable(folder: str | os.PathLike) -> None:
    """Find out before hours of work whether `remove_weights` and `save_weights` can put other weights into a folder.

    Raises:
        UsageError: it holds files that this software did not write.
    """
    folder = Path(folder)
    foreign = {path.name for path in folder.iterdir()} - set(_own_files(folder)) if folder.is_dir() else set()
    if foreign:
        raise UsageError(f"{folder} is written anew and holds {min(foreign)}, which is not from here. Move it away.")


def remove_weights(folder: str | os.PathLike) -> tuple[int, list[str]]:
    """Delete the files of a weights folder that its SHA256SUMS lists, and the calibration; then the folder, if empty.

    Returns:
        The bytes that are free now, and the names of what lies there still: files that this software did not write.

    Raises:
        UsageError: it is not a weights folder, or the one that comes with the package.
        BrgSAError: a file cannot be deleted.
    """
    folder = Path(folder)
    names = _own_files(folder)
    if not names:
        raise UsageError(f"{folder} is not a weights folder, so nothing was deleted.")
    if DATA in folder.resolve().parents:
        raise UsageError("the demonstration weights are part of the package and stay.")
    size = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
    remove_files(folder, names)
    left = sorted(path.name for path in folder.iterdir())
    if not left:
        folder.rmdir()
    return size, left


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over every file of a weights folder but the calibration."""
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.name not in (CHECKSUMS, FILE_NAME) and not path.name.startswith(".")
    )
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def import_released(
    checkpoint: str | os.PathLike,
    text_folder: str | os.PathLike,
    folder: str | os.PathLike,
    on_stage: Callable[[str], None] = lambda stage: None,
    **known: Any,
) -> Path:
    """Make a weights folder from the released Lightning checkpoint.

    Args:
        checkpoint: best.ckpt.
        text_folder: folder of the released text encoder; its vocab.txt is needed, and its config.json is used if there.
        folder: the weights folder to make.
        on_stage: told what is being done, for a progress display.
        known: sizes that the tensors do not tell, see `convert.config_of`.

    Raises:
        SetupError: see `convert.read_checkpoint` and `convert.convert_state`; or the vocabulary does not fit.
    """
    from brgsa.model import BrgSAModel
    from brgsa.weights import released as convert

    vocabulary = Path(text_folder) / "vocab.txt"
    if not vocabulary.is_file():
        raise SetupError(
            f"no vocab.txt in {text_folder}. Give the folder of the text encoder (M3AE_CXRBERT) as --text."
        )
    on_stage("reading the checkpoint")
    state = convert.state_of(convert.read_checkpoint(checkpoint), checkpoint)
    if (text_config := Path(text_folder) / "config.json").is_file() and "text" not in known:
        known["text"] = _bert_fields(text_config)
    config = convert.config_of(state, checkpoint, **known)
    on_stage("mapping its tensors")
    tensors = convert.convert_state(state, config, checkpoint)
    pieces = 1 + max(read_vocabulary(vocabulary).values())
    rows = len(tensors["text.bert.embeddings.word_embeddings.weight"])
    if pieces > rows:
        raise SetupError(
            f"{vocabulary} has {pieces} word pieces but {checkpoint} has {rows}. It belongs to another model."
        )
    model = BrgSAModel(config)
    model.load_state_dict(tensors)
    on_stage("writing the weights folder")
    return save_weights(folder, model, vocabulary, PreprocessingPlan(), RELEASED_CARD, RELEASED_LICENCE)


def export_bundle(name_or_folder: str | os.PathLike, bundle: str | os.PathLike) -> Path:
    """Pack weights into one zip file that `import_bundle` reads on a machine without network.

    Raises:
        BrgSAError: the file cannot be written.
    """
    weights = open_weights(name_or_folder)
    # Tensors hardly compress, so they are stored.
    with (
        atomic_path(bundle) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
    ):
        for path in sorted(weights.folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                archive.write(path, path.name)
    return Path(bundle)


def is_bundle(path: str | os.PathLike) -> bool:
    """Whether a file looks like one made by `export_bundle`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return CHECKSUMS in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def import_bundle(bundle: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Unpack a file made by `export_bundle` and check it.

    Raises:
        SetupError: the file is damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(bundle) as archive, atomic_folder(Path(folder)) as temporary:
            entries = _entries(archive, bundle)
            _unpack(archive, entries.pop(CHECKSUMS), temporary)
            listed = _read_checksums(temporary)[0]
            for name in [name for name in (*listed, FILE_NAME) if name in entries]:
                _unpack(archive, entries[name], temporary)
            if problems := verify(temporary, fresh=True):
                raise SetupError(f"{bundle}: {problems[0]}. Copy the bundle again.")
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError) as error:  # RuntimeError: encrypted, odd compression
        raise SetupError(f"cannot read {bundle} ({first_line(error)}). Give a file made by export-bundle.") from error
    return Path(folder)


def _entries(archive: zipfile.ZipFile, bundle: str | os.PathLike) -> dict[str, zipfile.ZipInfo]:
    """The files of a bundle by name, before any is unpacked.

    Raises:
        SetupError: one has a path or lies there twice, or they would fill the disk.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        if Path(name).name != name or set(name) & set("/\\:") or name in (".", ".."):
            raise SetupError(f"{bundle} holds {name[:60]!r}, a path. It is not a weights bundle.")
        if name.casefold() in {each.casefold() for each in entries}:
            raise SetupError(f"{bundle} holds {name[:60]!r} twice. It is not a weights bundle.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise SetupError(f"{bundle} holds {name[:60]!r}, a link. It is not a weights bundle.")
        entries[name] = entry
    if CHECKSUMS not in entries:
        raise SetupError(f"{bundle} holds no {CHECKSUMS}. Give a file made by export-bundle.")
    unpacked, packed = sum(entry.file_size for entry in entries.values()), Path(bundle).stat().st_size
    if unpacked > MOST_GROWTH * packed + SMALL_BUNDLE or entries[CHECKSUMS].file_size > 1_000_000:
        raise SetupError(f"{bundle} would grow from {packed:,} to {unpacked:,} bytes. It is not a weights bundle.")
    return entries


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    with archive.open(entry) as packed, (folder / entry.filename).open("xb") as file:
        shutil.copyfileobj(packed, file)


RELEASED_CARD = """---
license: other
library_name: brgsa
tags: [chest-ct, zero-shot, vision-language]
---
# BrgSA, released weights

Converted by `brgsa weights import` from the checkpoint that the authors of BrgSA (Lai et al., "Bridged Semantic
Alignment for Zero-shot 3D Medical Image Diagnosis", arXiv 2501.03565) distribute. Trained by them on CT-RATE.

* Intended use: research on zero-shot reading of chest CT. Not a medical device.
* Input: chest CT in HU, 1.5 x 1.5 x 3.0 mm, 256 x 256 x 128 voxels, axes growing Left, Posterior, Superior.
* Output: cosines in [-1, 1]; comparable within one abnormality across scans, not across abnormalities.
* Data and limits: one hospital, non-contrast chest CT; see the paper for results.
"""

RELEASED_LICENCE = """The checkpoint was distributed by the authors of BrgSA (https://github.com/laihaoran/BrgSA), whose
repository is under the Apache License 2.0. It was trained on CT-RATE, whose licence is CC BY-NC-SA 4.0: use it for
non-commercial research only, unless its authors tell you otherwise.
"""


def locate(name_or_folder: str) -> tuple[str, Path]:
    """The name and the folder of weights, not yet verified."""
    known = registry()
    if name_or_folder in known:
        row = known[name_or_folder]
        if row.folder is None:
            raise SetupError(f"weights {row.name!r} are not shipped with brgsa. {row.how_to_get}")
        return row.name, row.folder
    folder = Path(os.path.expanduser(name_or_folder))  # noqa: PTH111 (Path's raises where there is no such user)
    if not folder.is_dir():
        names = ", ".join(known)
        raise SetupError(
            f"no weights {name_or_folder!r}: neither a folder nor one of {names}. See `brgsa weights list`."
        )
    return folder.resolve().name, folder


def _bert_fields(path: Path) -> dict[str, Any]:
    """The fields of a BERT config.json that set its geometry."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        wanted = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        wanted += ("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act")
        return {key: content[key] for key in wanted if key in content}
    except (ValueError, TypeError) as error:
        raise SetupError(f"{path} is no BERT configuration ({first_line(error)}).") from error


def _read_verified() -> dict[str, list]:
    try:
        content = json.loads((cache_folder() / "verified.json").read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_verified(known: dict[str, list]) -> None:
    """Remember what was checked; a cache that cannot be written only costs the time of the next check."""
    if known == _read_verified():
        return
    try:
        write_json(cache_folder() / "verified.json", known)
    except BrgSAError:
        return
