"""A recipe: every value of a training run. Defaults are those of the released model where it has one.

Recipes are YAML files in `brgsa_training/recipes`; any value can be set on the command line (`--optimizer.lr 1e-4`),
and the whole recipe is kept in every checkpoint. Reference: docs/method.md e.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from brgsa_training.data.augmentation import Augmentation
from brgsa_training.pretrain.loss import LossWeights


@dataclass
class DataConfig:
    """What is learned from.

    Attributes:
        cache: folder made by `brgsa-training preprocess`.
        captions: JSON made by `brgsa-training summarize`.
        vocabulary: vocab.txt; that of `start.text` by default.
        split: of the captions, to train on.
        validation_split: of the captions; null to set patients of `split` aside.
        validation_cache: where their volumes are; `cache` by default.
        validation_share: share of the patients that is set aside when there is no split; 0 for no validation.
        shape, spacing: what the cache has to have (voxels, mm); null for whatever it has.
        crop: voxels of the random training crop; null for whole volumes. Validation sees whole volumes.
        fewest_sentences, sentences: how many sentences make a caption.
        augmentation: further random changes.
        workers: threads that load data ahead; 0 to load when it is needed.
    """

    cache: str = ""
    captions: str = ""
    vocabulary: str | None = None
    split: str = "train"
    validation_split: str | None = "valid"
    validation_cache: str | None = None
    validation_share: float = 0.05
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    crop: tuple[int, int, int] | None = (224, 224, 112)
    fewest_sentences: int = 5
    sentences: int = 5
    augmentation: Augmentation = field(default_factory=Augmentation)
    workers: int = 0


@dataclass
class TextConfig:
    """Geometry of BERT; its vocabulary size comes from the vocabulary, or from `start.text`."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1


@dataclass
class ModelConfig:
    """Sizes of the model, see `brgsa.model.BrgSAConfig`."""

    embedding_size: int = 768
    patch_size: tuple[int, int, int] = (16, 16, 8)
    position_grid: tuple[int, int, int] = (14, 14, 14)
    vision_width: int = 768
    vision_depth: int = 12
    vision_heads: int = 12
    vision_mlp_size: int = 3072
    text: TextConfig = field(default_factory=TextConfig)
    text_layers: int = 4
    text_length: int = 97
    bank_size: int = 2048


@dataclass
class StartConfig:
    """What the model starts from.

    Attributes:
        image: file of a masked autoencoder, {name: tensor} in the released layout, see `start.load_image`.
        text: Hugging Face folder of a BERT.
        weights: weights folder of a whole model of the same sizes.
        data_dependent: centre the patch embedding, unless it comes from `image`, and bring both projections to unit
            spread on this many pairs; 0 not to, as with `weights`. Small models trained from scratch leave the first
            plateau sooner with it.
        principal: start the patch embedding with principal components of the patches of this many volumes; 0 not to, as
            with `image` and `weights`.
    """

    image: str | None = None
    text: str | None = None
    weights: str | None = None
    data_dependent: int = 0
    principal: int = 0


@dataclass
class OptimizerConfig:
    """`kind` adam has the released L2 weight decay, adamw decouples it. `clip` is the largest gradient norm."""

    kind: Literal["adam", "adamw"] = "adam"
    lr: float = 5e-5
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-6
    clip: float = 0.25


@dataclass
class ScheduleConfig:
    """Learning rate over time: linear warm-up, then constant (released) or cosine down to `final_share` of it."""

    kind: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    final_share: float = 0.03


@dataclass
class TrainingConfig:
    """How training runs.

    Attributes:
        batch_size: pairs of a step, over all processes.
        epochs: passes over the studies; `steps` overrides it.
        steps: number of steps.
        seed: of the model, of all draws and of dropout.
        chunk: pairs per process whose activations are held at a time (gradient caching); null for all.
        checkpoint_blocks: compute activations of the image encoder again in the backward pass instead of keeping them.
        text_dropout: the released code trains BERT with its dropout off.
        validate_every: steps; null for once an epoch.
        patience: stop after this many validations without a better one; null never to stop.
        save_every: steps between checkpoints; null for once an epoch.
        log_every: steps between lines in TensorBoard.
        tensorboard: write its files.
        device: auto, cuda, mps or cpu.
        precision: of the encoders, fp32 or bf16 (half the memory; several times as fast on a GPU from Ampere on).
    """

    batch_size: int = 64
    epochs: int = 39
    steps: int | None = None
    seed: int = 1
    chunk: int | None = None
    checkpoint_blocks: bool = False
    text_dropout: bool = False
    validate_every: int | None = None
    patience: int | None = 10
    save_every: int | None = None
    log_every: int = 10
    tensorboard: bool = True
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass
class WeightsConfig:
    """What the weights folder at the end says about itself: a notice shown with every score, and the licence."""

    notice: str | None = None
    licence: str = "No licence was chosen for these weights. Ask whoever trained them before you use or share them.\n"


@dataclass
class Recipe:
    """All of a training run. `out` receives checkpoints, logs and the weights folder."""

    out: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    start: StartConfig = field(default_factory=StartConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, tuples as lists."""
        return plain(dataclasses.asdict(self))


# What may differ between the run that wrote a checkpoint and the run that goes on from it.
FREE = (
    "out",
    "data.cache",
    "data.captions",
    "data.vocabulary",
    "data.validation_cache",
    "data.workers",
    "start.",
    "training.epochs",
    "training.steps",
    "training.patience",
    "training.save_every",
    "training.log_every",
    "training.tensorboard",
    "training.device",
    "weights.",
)


def differences(recipe: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """Say what in a saved recipe is so different that going on from its checkpoint would not be the same training."""
    ours, theirs = flat(recipe), flat(saved)
    return [
        f"{name} was {theirs.get(name)}, is {ours.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and not name.startswith(FREE)
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    result = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return result


def plain(value: Any) -> Any:
    """The same with tuples as lists, as YAML and checkpoints have it."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value
