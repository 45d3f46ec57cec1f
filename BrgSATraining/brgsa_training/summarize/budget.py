"""What requests cost, and a cap that holds."""

import asyncio
from typing import NamedTuple

from brgsa.errors import UsageError
from brgsa_training.summarize.privacy import is_loopback


class Price(NamedTuple):
    """US dollars per million tokens."""

    tokens_in: float
    tokens_out: float

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Return the price of a request in dollars."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


def price_of(base_url: str, given: tuple[float, float] | None, needed: bool) -> Price | None:
    """Return the price of a model as the user gave it; a server on this machine is free, any other price not known.

    Raises:
        UsageError: the price is needed for a cap, but is not known; or a price is negative.
    """
    if given:
        if min(given) < 0:
            raise UsageError("--price takes two amounts of 0 dollars or more.")
        return Price(*given)
    if is_loopback(base_url):
        return Price(0.0, 0.0)
    if needed:
        raise UsageError(
            "--max-cost needs the price of the model: look it up and give it with --price IN OUT, in dollars per "
            "million tokens."
        )
    return None


class Budget:
    """Money spent and reserved by one run; `cap` in dollars or None.

    Each request reserves the most that it can cost and pays what it did cost, so the cap is never passed.
    """

    def __init__(self, cap: float | None):
        self.cap = cap
        self.spent = 0.0
        self.exhausted = False
        self._reserved = 0.0
        self._changed = asyncio.Condition()

    async def reserve(self, most: float) -> bool:
        """Reserve the most that a request can cost; wait for others to pay first; False when it will never fit."""
        if self.cap is None:
            return True
        async with self._changed:
            while self.spent + self._reserved + most > self.cap:
                if self.exhausted or self._reserved <= 0:
                    self.exhausted = True
                    self._changed.notify_all()
                    return False
                await self._changed.wait()
            self._reserved += most
        return True

    async def pay(self, most: float, cost: float) -> None:
        """Give a reservation back and note what the request did cost."""
        self.spent += cost
        if self.cap is None:
            return
        async with self._changed:
            self._reserved = max(0.0, self._reserved - most)
            if self._reserved < 1e-12:
                self._reserved = 0.0
            self._changed.notify_all()
