"""Choosing the next token from its scores: greedily, or at random and yet the same every time."""

import random
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SamplingParams:
    """How a request's tokens are chosen, and when it ends.

    Args:
        max_tokens: of each output, at least 1.
        temperature: 0 takes the likeliest token; above, the scores are divided by it and a token is drawn.
        n: outputs for the prompt, each drawn for itself.
        seed: of the draws; None takes a fresh one.
        ignore_eos: go on to max_tokens whatever comes.

    Raises:
        ValueError: a number out of range.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    n: int = 1
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self):
        for name, value in (("max_tokens", self.max_tokens), ("n", self.n)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        number = isinstance(self.temperature, (int, float)) and not isinstance(self.temperature, bool)
        if not number or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a number of at least 0, got {self.temperature!r}")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise ValueError(f"seed must be a whole number or None, got {self.seed!r}")


@dataclass(frozen=True)
class Draw:
    """What one row of scores is drawn with. Keyed by seed, output and position, so that neither the batch nor a
    preemption shifts the dice."""

    temperature: float
    seed: int
    index: int  # which of the request's outputs
    position: int  # of the new token in its text

    def dice(self) -> float:
        """A number from 0 to below 1, the same for the same draw on every machine."""
        return random.Random(f"{self.seed} {self.index} {self.position}").random()


def choose(logits: torch.Tensor, draws: list[Draw]) -> list[int]:
    """The next token of each row: [R, vocab] -> R token ids.

    Example:
        >>> choose(torch.tensor([[0.0, 3.0, 1.0]]), [Draw(0.0, seed=0, index=0, position=5)])
        [1]
    """
    chosen = logits.argmax(dim=-1).tolist()
    for row, draw in enumerate(draws):
        if draw.temperature > 0:
            scores = logits[row].double()
            # The largest first becomes 0: divided by a tiny temperature it stays 0, and the others vanish.
            shares = torch.softmax((scores - scores.max()) / draw.temperature, dim=-1).cumsum(dim=-1)
            token = int(torch.searchsorted(shares, shares[-1] * draw.dice(), right=True))
            chosen[row] = min(token, len(shares) - 1)
    return chosen
