"""Passes: one batch learnt from in several shuffled minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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

    def __call__(
        self, batch: Batch, atoms: Tensor, probs: Tensor | None
    ) -> Iterator[tuple[Batch, Tensor, Tensor | None]]:
        length, columns = batch.action.shape
        weight = batch.weight.expand(length, columns)
        flat = [x.flatten(0, 1) for x in (batch.obs[:length], batch.action, batch.reward, batch.discount, weight)]
        for _ in range(self.epochs):
            order = torch.randperm(length * columns, device=atoms.device, generator=self.generator)
            for rows in order.tensor_split(self.minibatches):
                obs, action, reward, discount, w = (x[rows][None] for x in flat)
                part = replace(batch, obs=obs, action=action, reward=reward, discount=discount, weight=w,
                               bootstrap=None, done=None)  # fmt: skip
                mass = None if probs is None else probs.flatten(0, 1)[rows][None]
                yield part, atoms.flatten(0, 1)[rows][None], mass
