"""Passes: one batch learnt from in several shuffled minibatches."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dqn.types import Batch


class Passes:
    """Several passes over one batch in shuffled minibatches, its targets computed once before.

    The T·B rows are permuted anew for each of `epochs` and cut into `minibatches`; each gives one gradient step.
    Gallici et al. (2024), PQN, alg. 1; as in Schulman et al. (2017), PPO.
    Errors: ValueError when one of them is not positive.
    """

    def __init__(self, epochs: int, minibatches: int, generator: torch.Generator):
        if epochs < 1 or minibatches < 1:
            raise ValueError(f"passes.epochs and passes.minibatches must be ≥ 1, got {epochs} and {minibatches}")
        self.epochs, self.minibatches, self.generator = epochs, minibatches, generator

    @property
    def steps(self) -> int:
        return self.epochs * self.minibatches

    @staticmethod
    def flatten(batch: Batch, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, ...]:
        """A batch as rows [T·B, ...]: obs, action, reward, discount, weight, atoms, and probs where there are any."""
        length, columns = batch.action.shape
        weight = batch.weight.expand(length, columns)
        parts = [batch.obs[:length], batch.action, batch.reward, batch.discount, weight, atoms]
        return tuple(x.flatten(0, 1) for x in (parts if probs is None else [*parts, probs]))

    def rows(self, count: int, device: torch.device) -> Iterator[Tensor]:
        """The numbers of the rows of each minibatch in turn."""
        for _ in range(self.epochs):
            order = torch.randperm(count, device=device, generator=self.generator)
            yield from order.tensor_split(self.minibatches)

    @staticmethod
    def part(rows: Tensor, *flat: Tensor) -> tuple[Batch, Tensor, Tensor | None]:
        """One minibatch, [1, B, ...], with its targets."""
        obs, action, reward, discount, weight, atoms, *probs = (x[rows][None] for x in flat)
        return Batch(obs, action, reward, discount, weight), atoms, probs[0] if probs else None
