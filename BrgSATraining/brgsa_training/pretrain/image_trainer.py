"""Training of the masked autoencoder, and its recipe.

OUT/last.pt    checkpoint    OUT/image.pth    the image encoder, for `start.image` of a recipe
"""

import dataclasses
import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from brgsa.device import PRECISIONS, choose_device, choose_precision, computing, out_of_memory
from brgsa.errors import BrgSAError, UsageError
from brgsa.files.output_folder import output_folder
from brgsa.model import BrgSAModel
from brgsa_training.data.cache import VolumeCache
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import Batch, Volumes, to_model_input
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.data.volumes import VolumeDataset
from brgsa_training.pretrain.build import model_config, new_optimizer
from brgsa_training.pretrain.checkpoint import LAST, TRAINING_RUN, find_state, save_checkpoint, save_tensors
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.mae import MaskConfig, MaskedAutoencoder, released_layout
from brgsa_training.pretrain.recipe import ModelConfig, OptimizerConfig, Recipe, ScheduleConfig, plain
from brgsa_training.pretrain.schedule import rate_share
from brgsa_training.pretrain.start import centre_patches

IMAGE_FILE = "image.pth"


@dataclass
class ImageData:
    """What is learned from.

    Attributes:
        cache: folder made by `brgsa-training preprocess`.
        crop: voxels of the random crop; null for whole volumes.
        workers: threads that load data ahead; 0 to load when it is needed.
    """

    cache: str = ""
    crop: tuple[int, int, int] | None = (224, 224, 112)
    workers: int = 0


@dataclass
class ImageTraining:
    """How training runs.

    Attributes:
        batch_size: volumes of a step, over all processes.
        steps: number of steps.
        seed: of the model and of all draws.
        save_every: steps between checkpoints.
        centre: volumes on which the patch embedding is centred first; 0 not to.
        device: auto, cuda, mps or cpu.
        precision: fp32 or bf16.
    """

    batch_size: int = 64
    steps: int = 20000
    seed: int = 1
    save_every: int = 500
    centre: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass
class ImageRecipe:
    """All of a run. `out` receives a checkpoint and image.pth."""

    out: str = ""
    data: ImageData = field(default_factory=ImageData)
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adamw", 1.5e-4, (0.9, 0.95), weight_decay=0.05, clip=1.0)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("cosine", 500))
    training: ImageTraining = field(default_factory=ImageTraining)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, tuples as lists."""
        return plain(dataclasses.asdict(self))


class ImageTrainer:
    """One run of the masked autoencoder.

    Args:
        recipe: all its values.
        volumes: what to train on; the cache of the recipe by default.
        out: folder for the result; `recipe.out` by default.
        world: the processes that share the run.

    Raises:
        UsageError, InputError, SetupError: the recipe does not fit the volumes or the machine.
    """

    def __init__(
        self,
        recipe: ImageRecipe,
        volumes: Volumes | None = None,
        out: str | os.PathLike | None = None,
        world: World | None = None,
    ):
        self.recipe, self.world, self.out = recipe, world or World(), Path(out or recipe.out)
        if volumes is None and not recipe.data.cache:
            raise UsageError("the recipe has no data.cache. Give --data.cache PATH.")
        volumes = VolumeCache.open(recipe.data.cache) if volumes is None else volumes
        training = recipe.training
        self.dataset = VolumeDataset(volumes, crop=recipe.data.crop, seed=training.seed)
        if any(side % patch for side, patch in zip(self.dataset.shape, recipe.model.patch_size, strict=True)):
            raise UsageError(f"{self.dataset.shape} voxels are not a multiple of model.patch_size. Change data.crop.")
        self.batches = StudyBatches(
            len(self.dataset), training.batch_size, training.seed, self.world.rank, self.world.size
        )
        kind = choose_device(training.device)
        self.device = torch.device(f"cuda:{self.world.local_rank}" if kind == "cuda" else kind)
        self.dtype = PRECISIONS[choose_precision(training.precision, kind)]

        torch.manual_seed(training.seed)
        vision = BrgSAModel(model_config(Recipe(model=recipe.model), vocabulary_size=100)).vision
        if training.centre:
            centre_patches(vision, self.dataset, training.centre)
        self.autoencoder = MaskedAutoencoder(vision, recipe.mask).to(self.device)
        self.module: nn.Module = self.autoencoder
        if self.world.size > 1:
            self.module = DistributedDataParallel(self.autoencoder)
        self.optimizer = new_optimizer(self.autoencoder, recipe.optimizer)
        self.step, self.losses = 0, []  # the losses of the last hundred steps

    def run(self, resume: bool | str | os.PathLike = False) -> Path:
        """Train, and return the file for `start.image`.

        Args:
            resume: True to go on from OUT/last.pt where there is one, or the path of a checkpoint.

        Raises:
            UsageError: the folder is in use or holds another run.
            BrgSAError: the loss is not finite, or the disk is full.
        """
        training = self.recipe.training
        device = str(self.device)
        with (
            output_folder(self.out, TRAINING_RUN) if self.world.first else nullcontext(),
            out_of_memory(device),
            computing(device),
        ):
            self._find_state(resume)
            self.batches.first_step = self.step
            pinned = self.device.type == "cuda"
            loader = iter(BatchLoader(self.dataset, self.batches, self.recipe.data.workers, pinned))
            disable = None if self.world.first else True
            with tqdm(total=training.steps, initial=self.step, desc="image", unit="step", disable=disable) as bar:
                while self.step < training.steps:
                    self.losses = [*self.losses[-99:], self._one_step(next(loader))]
                    bar.update()
                    if self.step % 10 == 0:
                        bar.set_postfix(loss=f"{np.mean(self.losses):.4f}", refresh=False)
                    if self.step % training.save_every == 0 or self.step == training.steps:
                        self._save()
            if self.world.first:
                save_tensors(self.out / IMAGE_FILE, released_layout(self.autoencoder.vision))
        return self.out / IMAGE_FILE

    def _one_step(self, batch: Batch) -> float:
        values, dataset = self.recipe.optimizer, self.dataset
        for group in self.optimizer.param_groups:
            group["lr"] = values.lr * rate_share(self.step, self.recipe.training.steps, self.recipe.schedule)
        volume = to_model_input(
            batch.voxels.to(self.device, non_blocking=True), dataset.volumes.plan, dataset.slope, dataset.intercept
        )
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype) if mixed else nullcontext():
            loss = self.module(volume, self._order(len(volume)))
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.autoencoder.parameters(), values.clip)
        shared = self.world.mean(torch.stack([loss.detach(), norm]))
        if not shared.isfinite().all():
            cases = [case for names in self.world.objects(batch.cases) for case in names]
            raise BrgSAError(
                f"the loss at step {self.step + 1} is not finite; its cases: {', '.join(cases)}. Lower optimizer.lr."
            )
        self.optimizer.step()
        self.step += 1
        return shared[0].item()

    def _order(self, count: int) -> Tensor:
        """A random order of the patches of every volume, decided by seed, step and process."""
        patches = int(np.prod(self.autoencoder.vision.grid(self.dataset.shape)))
        rng = np.random.default_rng((self.recipe.training.seed, self.step, self.world.rank))
        return torch.from_numpy(rng.random((count, patches)).argsort(1)).to(self.device)

    def _save(self) -> None:
        if self.world.first:
            state = self._identity | {"step": self.step, "losses": self.losses}
            parts = {"model": self.autoencoder.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_checkpoint(self.out / LAST, state | parts)

    def _find_state(self, resume: bool | str | os.PathLike) -> None:
        content = find_state(self.out, resume, **self._identity)
        if content is not None:
            self.autoencoder.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.step, self.losses = content["step"], content["losses"]

    @property
    def _identity(self) -> dict[str, Any]:
        cases = " ".join(study.name for study in self.dataset.studies)
        return {"recipe": self.recipe.to_dict(), "world": self.world.size, "data": cases}
