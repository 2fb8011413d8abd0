"""Normalisers: what is observed, brought to the scale on which networks learn, before the torso sees it."""

from typing import Any

import torch
from torch import Tensor, nn

from dqn.types import Spec


class Running(nn.Module):
    """x ← clip((x − μ) / √(σ² + ε), ±`clip`), element by element, with the mean μ and the variance σ² of every
    observation that was acted on while the run learnt.

    Real numbers are normalised, whole or as entries of a Dict; bytes, bits, numbered states and masks are not. What is
    observed is counted by `gather` and taken over by `refresh`: between two learning phases the network stays the
    function that it is. The target network has the same normaliser (learning.learner): a copy would know nothing of the
    scale before the first sync.

    Welford (1962) and, for several environments at a tick, Chan, Golub & LeVeque (1979); ε and the clipping as in
    Stable-Baselines3's VecNormalize. Errors: ValueError where nothing that is observed is a real number.
    """

    def __init__(self, spec: Spec, clip: float = 10.0, eps: float = 1e-8):
        super().__init__()
        if not clip > 0 or not eps > 0:
            raise ValueError(f"normalizer.clip and normalizer.eps must be > 0, got {clip} and {eps}")
        real = [(name, part) for name, part in spec.parts or (("", spec),) if part.obs_dtype.kind == "f"]
        if not real:
            raise ValueError(
                "normalizer=running normalises real numbers, and all that is observed are bytes, bits or numbered "
                "states, which are scaled already: set normalizer=none"
            )
        self.clip, self.names = clip, [name for name, _ in real]
        self.statistics = nn.ModuleList(Statistics(part.obs_shape, eps) for _, part in real)

    def forward(self, seen: Any) -> Any:
        """What is observed [..., *shape], or a dict of such tensors, normalised."""
        if isinstance(seen, dict):
            return {**seen, **{name: one(seen[name], self.clip) for name, one in self._each()}}
        return self.statistics[0](seen, self.clip)

    @torch.no_grad()
    def gather(self, seen: Any, decided: Tensor) -> None:
        """Count a block of observations [K, E, *shape], or a dict of such, where something was `decided` [K, E]."""
        for name, one in self._each():
            one.gather(seen[name] if isinstance(seen, dict) else seen, decided)

    @torch.no_grad()
    def refresh(self) -> None:
        """Normalise by all that was counted so far."""
        for one in self.statistics:
            one.refresh()  # pyright: ignore[reportCallIssue]  # a Statistics

    def _each(self) -> Any:
        return zip(self.names, self.statistics, strict=True)


class Statistics(nn.Module):
    """The mean and the variance of one array [*shape], counted in float64, and those by which it is normalised."""

    mean: Tensor
    factor: Tensor
    count: Tensor
    average: Tensor
    squares: Tensor

    def __init__(self, shape: tuple[int, ...], eps: float):
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(shape))  # by which it is normalised: 0 and 1 before anything is known
        self.register_buffer("factor", torch.ones(shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))  # observations so far,
        self.register_buffer("average", torch.zeros(shape, dtype=torch.float64))  # their mean,
        self.register_buffer("squares", torch.zeros(shape, dtype=torch.float64))  # and the sum of squared deviations

    def forward(self, x: Tensor, clip: float) -> Tensor:
        return ((x - self.mean) * self.factor).clamp(-clip, clip)

    def gather(self, x: Tensor, decided: Tensor) -> None:
        """Count x [K, E, *shape] where `decided` [K, E], a tick after another: the sums do not depend on where one
        block ends and the next begins."""
        axes = (-1, *[1] * len(self.average.shape))
        for tick, counts in zip(x.to(torch.float64), decided.to(torch.float64), strict=True):
            weight, number = counts.view(axes), counts.sum()
            mean = (tick * weight).sum(0) / number.clamp(min=1)
            spread = ((tick - mean).square() * weight).sum(0)
            total, away = self.count + number, mean - self.average
            share = number / total.clamp(min=1)
            self.squares += spread + away.square() * self.count * share
            self.average += away * share
            self.count.copy_(total)

    def refresh(self) -> None:
        """Normalise by what was counted; by nothing where nothing was."""
        known = self.count > 0
        variance = self.squares / self.count.clamp(min=1)
        self.mean.copy_(self.average)  # 0 where nothing was counted
        self.factor.copy_(torch.where(known, (variance + self.eps).rsqrt(), 1.0))


def nothing(spec: Spec) -> None:
    """No normaliser: the torso sees what is observed."""
