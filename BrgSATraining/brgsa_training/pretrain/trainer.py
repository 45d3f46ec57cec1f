"""The training loop: plain PyTorch, the same in one process and in many, cut and resumed at any step.

>>> trainer = Trainer(recipe, material(recipe, volumes, studies), out)                      # doctest: +SKIP
>>> trainer.run(resume=True).weights                                                       # doctest: +SKIP

OUT/last.pt, best.pt    checkpoints     OUT/history.csv    losses     OUT/tensorboard    the same as curves
OUT/weights             a weights folder with the best model
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from brgsa.device import PRECISIONS, choose_device, choose_precision, out_of_memory
from brgsa.errors import CANCELLED_EXIT_CODE, BrgSAError, OutOfMemoryError, UsageError
from brgsa.files import write_csv
from brgsa.model import BrgSAModel
from brgsa.weights import save_weights
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import Batch, PairDataset, to_model_input
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.lock import locked
from brgsa_training.pretrain.build import new_model, new_optimizer
from brgsa_training.pretrain.card import model_card
from brgsa_training.pretrain.checkpoint import BEST, LAST, load_checkpoint, require_same_run, save_checkpoint
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.gradcache import Inputs, PairEncoder, backward
from brgsa_training.pretrain.loss import LossTerms, loss_terms
from brgsa_training.pretrain.material import Material
from brgsa_training.pretrain.meter import Meter
from brgsa_training.pretrain.recipe import Recipe
from brgsa_training.pretrain.schedule import rate_share

HISTORY = ("step", "epoch", "train_loss", "validation")
TERMS = tuple(field.name for field in fields(LossTerms))


class StoppedError(BrgSAError):
    """Training was asked to stop; its state is saved."""

    exit_code = CANCELLED_EXIT_CODE


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `judgement` is what the best checkpoint minimised: the validation loss or what `judge` gave."""

    steps: int
    best_step: int
    judgement: float | None
    history: list[list]
    weights: Path


class Trainer:
    """One training run.

    Args:
        recipe: all its values.
        material: what it trains on.
        out: folder for checkpoints, logs and weights; `recipe.out` by default.
        world: the processes that share the run.
        judge: from the model (eval mode) to a number that is smaller for a better one, instead of the validation loss;
            called in every process.

    Raises:
        UsageError, InputError, SetupError: the recipe does not fit the material, the machine, or what it starts from.
    """

    def __init__(
        self,
        recipe: Recipe,
        material: Material,
        out: str | os.PathLike | None = None,
        world: World | None = None,
        judge: Callable[[BrgSAModel], float] | None = None,
    ):
        self.recipe, self.material, self.world, self.judge = recipe, material, world or World(), judge
        self.out = Path(out or recipe.out)
        training = recipe.training
        kind = choose_device(training.device)
        self.device = torch.device(f"cuda:{self.world.local_rank}" if kind == "cuda" else kind)
        self.dtype = PRECISIONS[choose_precision(training.precision, kind)]
        self.batches = StudyBatches(
            len(material.train), training.batch_size, training.seed, self.world.rank, self.world.size
        )
        self.steps = training.steps or training.epochs * self.batches.per_epoch
        self.validate_every = training.validate_every or self.batches.per_epoch
        self.save_every = training.save_every or self.batches.per_epoch

        torch.manual_seed(training.seed)
        self.model = new_model(recipe, material)
        self.model.vision.checkpoint_blocks = training.checkpoint_blocks
        self.model.to(self.device)
        encoder = PairEncoder(self.model, self.dtype)
        self.encoder: nn.Module = DistributedDataParallel(encoder) if self.world.size > 1 else encoder
        self.optimizer = new_optimizer(self.model, recipe.optimizer)
        torch.manual_seed(training.seed + 1 + self.world.rank)  # of dropout

        self.step, self.best_step, self.best, self.without_gain = 0, 0, None, 0
        self.history: list[list] = []
        self.losses: list[float] = []  # since the last validation
        self.stop_requested = False

    # ------------------------------------------------------------------------------------------------------------ run

    def run(self, resume: bool | str | os.PathLike = False, until: int | None = None) -> TrainResult:
        """Train, and write the weights folder at the end.

        Args:
            resume: True to go on from OUT/last.pt where there is one, or the path of a checkpoint.
            until: stop for good after this step, without weights (for tests and timings).

        Raises:
            UsageError: the folder is in use or holds a run; or the checkpoint is one of another run.
            OutOfMemoryError: with what to lower.
            StoppedError: `stop_requested` was set; the state is saved.
            BrgSAError: the loss is not finite, or the disk is full.
        """
        with locked(self.out, "training") if self.world.first else nullcontext():
            self._find_state(resume)
            with self._memory_advice():
                self._train(min(self.steps, until or self.steps))
            weights = self.out / "weights"
            if until is None and self.world.first:
                self._write_weights(weights)
            return TrainResult(self.step, self.best_step, self.best, self.history, weights)

    def _train(self, last_step: int) -> None:
        training = self.recipe.training
        meter = Meter(self.model.config, self.material.train.shape, self.device, self.world.size)
        if self.step >= last_step or self._patience_ends():
            return
        self.batches.first_step = self.step
        pinned = self.device.type == "cuda"
        loader = BatchLoader(self.material.train, self.batches, self.recipe.data.workers, pinned)
        with (
            self._writer() as writer,
            tqdm(
                total=self.steps,
                initial=self.step,
                desc="pretrain",
                unit="step",
                disable=None if self.world.first else True,
            ) as bar,
        ):
            for batch in loader:
                meter.loaded()
                loss, terms, norm = self._one_step(batch)
                meter.stepped(batch)
                bar.update()
                if self.step % training.log_every == 0:
                    bar.set_postfix({"loss": f"{loss:.3f}"} | meter.report(), refresh=False)
                    if writer:
                        self._log(writer, meter, loss, terms, norm)
                ended = self.step >= last_step
                if self.material.validation and (self.step % self.validate_every == 0 or self.step == self.steps):
                    self._validate(bar, writer)
                    ended |= self._patience_ends()
                if ended or self.stop_requested or self.step % self.save_every == 0:
                    self._save(LAST)
                if ended:
                    break
                if self.stop_requested:
                    raise StoppedError(f"stopped at step {self.step} of {self.steps}. Go on with --resume auto.")
                meter.waiting()

    def _one_step(self, batch: Batch) -> tuple[float, LossTerms, float]:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * rate_share(self.step, self.steps, recipe.schedule)
        self._train_mode()
        self.optimizer.zero_grad()
        total, terms = backward(
            self.encoder, self._inputs(batch, self.material.train), recipe.loss, self.world, recipe.training.chunk
        )
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
        shared = self.world.sum(
            torch.stack([total, norm / self.world.size, total.new_tensor(float(self.stop_requested))])
        )
        loss, norm, stop = (shared / torch.tensor([self.world.size, 1, 1], device=shared.device)).tolist()
        if not (abs(loss) < float("inf") and norm < float("inf")):
            cases = [case for names in self.world.objects(batch.cases) for case in names]
            raise BrgSAError(
                f"loss {loss:g} and gradient norm {norm:g} at step {self.step + 1} are not finite; its cases: "
                f"{', '.join(cases)}. Look at them, or lower optimizer.lr; the last checkpoint is whole."
            )
        self.stop_requested = stop > 0
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss)
        return loss, terms, norm

    # ----------------------------------------------------------------------------------------------------- validation

    def _validate(self, bar: tqdm, writer) -> None:
        train_loss, self.losses = sum(self.losses) / max(1, len(self.losses)), []
        self.model.eval()
        judgement = self.judge(self.model) if self.judge else self.validation_loss()
        better = self.best is None or judgement < self.best
        if better:
            self.best, self.best_step, self.without_gain = judgement, self.step, 0
        else:
            self.without_gain += 1
        epoch = self.step / self.batches.per_epoch
        self.history.append([self.step, round(epoch, 3), train_loss, judgement])
        if better:
            self._save(BEST)
        if self.world.first:
            write_csv(self.out / "history.csv", HISTORY, self.history)
            bar.write(
                f"step {self.step} (epoch {epoch:.1f}): loss {train_loss:.4f}, "
                f"validation {judgement:.4f}{', the best so far' if better else ''}"
            )
            if writer:
                writer.add_scalar("validation", judgement, self.step)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over whole batches of the validation pairs; their captions are the same each time."""
        pairs, size = self.material.validation, self.world.size
        count = min(self.recipe.training.batch_size, len(pairs) // size * size)
        batches = StudyBatches(len(pairs), count, self.recipe.training.seed, self.world.rank, size, shuffle=False)
        encoder = getattr(self.encoder, "module", self.encoder)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        loader = BatchLoader(pairs, batches, self.recipe.data.workers)
        for batch in itertools.islice(loader, batches.per_epoch):
            image, text = self._embed(encoder, self._inputs(batch, pairs))
            embeddings = encoder.rebuild(image, text)
            terms = loss_terms(embeddings, self.recipe.loss.scale, self.world.gather, self.world.rank)
            total += terms.total(self.recipe.loss)
        return (self.world.mean(total) / batches.per_epoch).item()

    def _embed(self, encoder: PairEncoder, inputs: Inputs) -> tuple[Tensor, Tensor]:
        chunks = zip(*(part.split(self.recipe.training.chunk or len(part)) for part in inputs), strict=True)
        embedded = [encoder(*chunk) for chunk in chunks]
        return torch.cat([part.image for part in embedded]), torch.cat([part.text for part in embedded])

    def _patience_ends(self) -> bool:
        patience = self.recipe.training.patience
        return patience is not None and self.without_gain >= patience

    # ---------------------------------------------------------------------------------------------------------- state

    def _save(self, name: str) -> None:
        states = self.world.objects(self._random_state())
        if not self.world.first:
            return
        save_checkpoint(
            self.out / name,
            {
                "recipe": self.recipe.to_dict(),
                "world": self.world.size,
                "data": self.material.fingerprint,
                "step": self.step,
                "best_step": self.best_step,
                "best": self.best,
                "without_gain": self.without_gain,
                "history": self.history,
                "losses": self.losses,
                "random": states,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _find_state(self, resume: bool | str | os.PathLike) -> None:
        last = self.out / LAST
        path = last if resume is True else Path(resume) if resume else None
        if path == last and not last.exists() and resume is True:
            path = None
        if path is None:
            if last.exists():
                raise UsageError(f"{self.out} holds a run. Go on with --resume auto, or choose another --out.")
            return
        content = load_checkpoint(path)
        require_same_run(path, content, self.recipe.to_dict(), self.world.size, self.material.fingerprint)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name in ("step", "best_step", "best", "without_gain", "history", "losses"):
            setattr(self, name, content[name])
        self._set_random_state(content["random"][self.world.rank])

    def _random_state(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state()} | (
            {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        )

    def _set_random_state(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def _write_weights(self, folder: Path) -> None:
        if self.best is not None:
            self.model.load_state_dict(load_checkpoint(self.out / BEST)["model"])
        shutil.rmtree(folder, ignore_errors=True)
        transformers.logging.disable_progress_bar()
        card = model_card(self.recipe, self.material, self.best_step or self.step, self.best)
        plan = self.material.train.volumes.plan
        save_weights(
            folder, self.model.cpu(), self.material.tokenizer.vocabulary, plan, card, self.recipe.weights.licence
        )

    # ---------------------------------------------------------------------------------------------------------- parts

    def _train_mode(self) -> None:
        self.encoder.train()
        if not self.recipe.training.text_dropout:
            self.model.text.eval()

    def _inputs(self, batch: Batch, pairs: PairDataset) -> Inputs:
        voxels, ids, mask = (part.to(self.device, non_blocking=True) for part in (batch.voxels, batch.ids, batch.mask))
        return to_model_input(voxels, pairs.volumes.plan, pairs.slope, pairs.intercept), ids, mask

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        if not (self.recipe.training.tensorboard and self.world.first):
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step or None) as writer:
            yield writer

    def _log(self, writer, meter: Meter, loss: float, terms: LossTerms, norm: float) -> None:
        values = dict(zip(TERMS, terms.stacked().tolist(), strict=True)) | meter.numbers()
        values |= {"loss": loss, "gradient_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}
        for name, value in values.items():
            writer.add_scalar(name, value, self.step)

    @contextmanager
    def _memory_advice(self) -> Iterator[None]:
        try:
            with out_of_memory(str(self.device)):
                yield
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"not enough memory on {self.device} for {self.recipe.training.batch_size} pairs on "
                f"{self.world.size} process(es). Lower training.chunk or training.batch_size, or set "
                "training.checkpoint_blocks; --dry-run estimates what is needed."
            ) from error
