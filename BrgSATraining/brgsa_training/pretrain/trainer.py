"""The training loop: plain PyTorch, the same in one process and in many, cut and resumed at any step.

>>> trainer = Trainer(recipe, material(recipe, volumes, studies), out)                      # doctest: +SKIP
>>> trainer.run(resume=True).weights                                                       # doctest: +SKIP

OUT/last.pt, best.pt    checkpoints     OUT/history.csv    losses     OUT/tensorboard    the same as curves
OUT/weights             a weights folder with the best model
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from brgsa.device import PRECISIONS, choose_device, choose_precision, computing, out_of_memory
from brgsa.errors import CANCELLED_EXIT_CODE, BrgSAError, OutOfMemoryError, UsageError
from brgsa.files import write_csv
from brgsa.files.output_folder import output_folder
from brgsa.model import BrgSAModel
from brgsa.weights.folder import remove_weights, require_replaceable, save_weights
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import Batch
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.pretrain.build import new_model, new_optimizer
from brgsa_training.pretrain.card import model_card
from brgsa_training.pretrain.checkpoint import (
    BEST,
    HISTORY_FILE,
    LAST,
    TRAINING_RUN,
    WEIGHTS,
    find_state,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.gradcache import PairEncoder, backward, model_inputs
from brgsa_training.pretrain.loss import LossTerms
from brgsa_training.pretrain.material import Material
from brgsa_training.pretrain.meter import Meter
from brgsa_training.pretrain.recipe import Recipe
from brgsa_training.pretrain.schedule import rate_share
from brgsa_training.pretrain.state import Progress, random_state, set_random_state
from brgsa_training.pretrain.validation import validation_batches, validation_loss

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
        if material.validation and judge is None:
            validation_batches(len(material.validation), recipe, self.world)  # an error now, not after an epoch
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

        self.progress = Progress()
        self.stop_requested = False  # by a signal, at any moment, perhaps in one process only
        self._stop_agreed = False  # by all processes in the same step, for they save together

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
        with output_folder(self.out, TRAINING_RUN) if self.world.first else nullcontext():
            if self.world.first:
                require_replaceable(self.out / WEIGHTS)
            self._find_state(resume)
            with self._memory_advice(), computing(str(self.device)):
                self._train(min(self.steps, until or self.steps))
            weights = self.out / WEIGHTS
            if until is None and self.world.first:
                self._write_weights(weights)
            done = self.progress
            return TrainResult(done.step, done.best_step, done.best, done.history, weights)

    def _train(self, last_step: int) -> None:
        training, progress = self.recipe.training, self.progress
        meter = Meter(self.model.config, self.material.train.shape, self.device, self.world.size)
        if progress.step >= last_step or self._patience_ends():
            return
        self.batches.first_step = progress.step
        pinned = self.device.type == "cuda"
        loader = BatchLoader(self.material.train, self.batches, self.recipe.data.workers, pinned)
        with (
            self._writer() as writer,
            tqdm(
                total=self.steps,
                initial=progress.step,
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
                if progress.step % training.log_every == 0:
                    bar.set_postfix({"loss": f"{loss:.3f}"} | meter.report(), refresh=False)
                    if writer:
                        self._log(writer, meter, loss, terms, norm)
                ended = progress.step >= last_step
                if self.material.validation and (
                    progress.step % self.validate_every == 0 or progress.step == self.steps
                ):
                    self._validate(bar, writer)
                    ended |= self._patience_ends()
                if ended or self._stop_agreed or progress.step % self.save_every == 0:
                    self._save(LAST)
                if ended:
                    break
                if self._stop_agreed:
                    raise StoppedError(f"stopped at step {progress.step} of {self.steps}. Go on with --resume auto.")
                meter.waiting()

    def _one_step(self, batch: Batch) -> tuple[float, list[float], float]:
        """Train on this process's share of a batch; return loss, terms and gradient norm of the whole batch."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * rate_share(self.progress.step, self.steps, recipe.schedule)
        self._train_mode()
        self.optimizer.zero_grad()
        inputs = model_inputs(batch, self.material.train, self.device)
        total, terms = backward(self.encoder, inputs, recipe.loss, self.world, recipe.training.chunk)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
        stop = total.new_tensor(float(self.stop_requested))
        shared = self.world.mean(torch.cat([torch.stack([total, norm, stop]), terms.stacked()]))
        loss, norm, stop, *values = shared.tolist()
        if not (abs(loss) < float("inf") and norm < float("inf")):
            cases = [case for names in self.world.objects(batch.cases) for case in names]
            raise BrgSAError(
                f"loss {loss:g} and gradient norm {norm:g} at step {self.progress.step + 1} are not finite; its cases: "
                f"{', '.join(cases)}. Look at them, or lower optimizer.lr; the last checkpoint is whole."
            )
        self._stop_agreed = stop > 0
        self.optimizer.step()
        self.progress.stepped(loss)
        return loss, values, norm

    # ----------------------------------------------------------------------------------------------------- validation

    def _validate(self, bar: tqdm, writer) -> None:
        self.model.eval()
        judgement = self.judge(self.model) if self.judge else self._validation_loss()
        better = self.progress.judged(judgement, self.progress.step / self.batches.per_epoch)
        if better:
            self._save(BEST)
        if self.world.first:
            self._write_history()
            step, epoch, train_loss, _ = self.progress.history[-1]
            bar.write(
                f"step {step} (epoch {epoch:.1f}): loss {train_loss:.4f}, "
                f"validation {judgement:.4f}{', the best so far' if better else ''}"
            )
            if writer:
                writer.add_scalar("validation", judgement, step)

    def _write_history(self) -> None:
        write_csv(self.out / HISTORY_FILE, HISTORY, self.progress.history)

    def _validation_loss(self) -> float:
        encoder = getattr(self.encoder, "module", self.encoder)
        return validation_loss(encoder, self.material.validation, self.recipe, self.device, self.world)

    def _patience_ends(self) -> bool:
        patience = self.recipe.training.patience
        return patience is not None and self.progress.without_gain >= patience

    # ---------------------------------------------------------------------------------------------------------- state

    def _save(self, name: str) -> None:
        states = self.world.objects(random_state(self.device))
        if self.world.first:
            parts = {"random": states, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_checkpoint(self.out / name, self._identity | vars(self.progress) | parts)
        # A process that stopped now would end with an error, and the launcher kill the one that is still writing.
        self.world.objects(None)

    def _find_state(self, resume: bool | str | os.PathLike) -> None:
        content = find_state(self.out, resume, **self._identity)
        if content is not None:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.progress = Progress(**{field.name: content[field.name] for field in fields(Progress)})
            set_random_state(content["random"][self.world.rank], self.device)
            if self.world.first:
                self._complete_folder(content, self.out / LAST if resume is True else Path(resume))

    def _complete_folder(self, content: dict[str, Any], source: Path) -> None:
        """Bring this run's folder to what it is after a step: a kill may have come between two of its files."""
        beside, best, last = source.with_name(BEST), self.out / BEST, self.out / LAST
        is_here = best.resolve() == beside.resolve() and step_of(best) == content["best_step"]
        if content["best"] is not None and not is_here:
            found = content if content["step"] == content["best_step"] else None
            if found is None and step_of(beside) == content["best_step"]:
                found = load_checkpoint(beside)
            if found is None:
                raise UsageError(
                    f"the best step of the run, {content['best_step']}, is not in {beside}. Put that file back beside "
                    f"{source.name}, or go on from {BEST}."
                )
            save_checkpoint(best, found)
        if step_of(last) != content["step"]:
            save_checkpoint(last, content)
        if self.progress.history:
            self._write_history()

    @property
    def _identity(self) -> dict[str, Any]:
        return {"recipe": self.recipe.to_dict(), "world": self.world.size, "data": self.material.fingerprint}

    def _write_weights(self, folder: Path) -> None:
        if self.progress.best is not None:
            self.model.load_state_dict(load_checkpoint(self.out / BEST)["model"])
        if folder.exists():
            remove_weights(folder)
        transformers.logging.disable_progress_bar()
        card = model_card(self.recipe, self.material, self.progress.best_step or self.progress.step, self.progress.best)
        plan = self.material.train.volumes.plan
        save_weights(
            folder, self.model.cpu(), self.material.tokenizer.vocabulary, plan, card, self.recipe.weights.licence
        )

    # ---------------------------------------------------------------------------------------------------------- parts

    def _train_mode(self) -> None:
        self.encoder.train()
        if not self.recipe.training.text_dropout:
            self.model.text.eval()

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        if not (self.recipe.training.tensorboard and self.world.first):
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.out / "tensorboard"), purge_step=self.progress.step or None) as writer:
            yield writer

    def _log(self, writer, meter: Meter, loss: float, terms: list[float], norm: float) -> None:
        values = dict(zip(TERMS, terms, strict=True)) | meter.numbers()
        values |= {"loss": loss, "gradient_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}
        for name, value in values.items():
            writer.add_scalar(name, value, self.progress.step)

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
