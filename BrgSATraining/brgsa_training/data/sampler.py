"""The order in which studies are shown: every study once per epoch, decided by seed and epoch alone."""

from collections.abc import Iterator

import numpy as np

from brgsa.errors import InputError, UsageError

Key = tuple[int, int]  # epoch, number of the study


class StudyBatches:
    """Batches of studies, without end, from a given place on.

    A study comes once per epoch and a batch never spans two epochs, so no batch holds two reconstructions of a study.
    What does not fill a batch is left out of the epoch, as in the released code; another part each time.

    Args:
        studies: how many there are.
        batch_size: of all processes together, so that a recipe means the same on any number of them.
        seed: of the order.
        rank, world: this process takes the rank-th part of every batch.
        shuffle: False for validation.

    Raises:
        InputError: fewer studies than a batch.
        UsageError: the batch does not divide by the number of processes.
    """

    def __init__(
        self, studies: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1, *, shuffle: bool = True
    ):
        if batch_size < 2 or batch_size % world:
            raise UsageError(
                f"a batch of {batch_size} pairs cannot be shared by {world} process(es): training.batch_size has to be "
                "2 or more and a multiple of their number."
            )
        if studies < batch_size:
            raise InputError(f"{studies} studies do not fill a batch of {batch_size}. Lower training.batch_size.")
        self.studies, self.batch_size, self.seed, self.shuffle = studies, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.first_step = 0
        self._known = -1, np.arange(0)  # the order of the epoch that was asked for last

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.studies // self.batch_size

    def batch(self, step: int) -> list[Key]:
        """This process's part of the batch of a step, counted from the start of training."""
        epoch, place = divmod(step, self.per_epoch)
        share = self.batch_size // self.world
        start = place * self.batch_size + self.rank * share
        return [(epoch, int(number)) for number in self._order(epoch)[start : start + share]]

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.studies)
        if self._known[0] != epoch:
            self._known = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.studies)
        return self._known[1]
