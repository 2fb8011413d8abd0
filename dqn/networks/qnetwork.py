"""The Q-network: a torso, a core where something must be remembered, and a head."""

from typing import Any

import torch
from torch import Tensor, nn

from dqn.networks.records import split
from dqn.protocols import Core, Head, Normalizer, Torso
from dqn.types import ILLEGAL, MASK, OBSERVATION, PRIOR, Batch, Rows, Spec, Values


class QNetwork(nn.Module):
    """Q(s, ·) = head(core(torso(normalizer(s)))): stands where the Q-table stood.

    obs [..., *obs_shape] → Values with q [..., A]; where the observation's record holds a mask of legal actions,
    illegal ones have q = ILLEGAL, and where it holds the log-probabilities of a given policy they go with the values.
    `parts` names what an observation that is a record is made of (types.Spec).
    With `precision` (torch.bfloat16) the torso's products are computed in it, under autocast; features, and what is
    made of them, are of the default dtype.
    """

    def __init__(
        self, torso: Torso, head: Head, core: Core | None = None, parts: tuple[tuple[str, Spec], ...] = (),
        precision: torch.dtype | None = None, normalizer: Normalizer | None = None,
    ):  # fmt: skip
        super().__init__()
        self.torso, self.core, self.head, self.parts, self.precision = torso, core, head, parts, precision
        self.normalizer = normalizer

    @property
    def state_size(self) -> int:
        """Width S of what the core remembers, 0 without one."""
        return self.core.state_size if self.core is not None else 0

    def initial(self, num_envs: int, device: torch.device | None = None) -> Tensor:
        """The memory of nothing: zeros [E, S]."""
        return torch.zeros(num_envs, self.state_size, device=device)

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> Values:
        """Values of observations that nothing came before; `mask` [..., A] where the observations carry none."""
        if self.core is not None:
            return self.step(obs, self.initial(obs.shape[0], obs.device), mask)[0]
        seen, own, prior = self._read(obs)
        return self._values(self._features(seen), mask if own is None else own, prior)

    def step(self, obs: Tensor, state: Tensor, mask: Tensor | None = None) -> tuple[Values, Tensor]:
        """One tick of E environments: obs [E, ...], what is remembered [E, S] → Values, what is remembered then."""
        if self.core is None:
            return self.forward(obs, mask), state
        seen, own, prior = self._read(obs)
        return self.step_seen(seen, state, mask if own is None else own, prior)

    def step_seen(
        self, seen: Any, state: Tensor, mask: Tensor | None = None, prior: Tensor | None = None
    ) -> tuple[Values, Tensor]:
        """`step` for what the torso sees, taken apart already: an array, or a dict of the entries of a record."""
        features = self._features(seen)
        if self.core is not None:
            rows, state = self.core(features[None], state)
            features = rows[0]
        return self._values(features, mask, prior), state

    def values_at(self, batch: Batch, rows: slice | Tensor) -> Values:
        """Values [T, B, ...] at some rows after the burn-in: a slice, or row numbers [T, B].

        Without a core only those rows are looked at; a core sees all rows in turn, from the stored state, and learns
        nothing from the burn-in (Kapturowski et al., 2019, §3).
        """
        burn_in, obs = batch.burn_in, batch.obs
        if self.core is None:
            return self.forward(_pick(obs[burn_in:] if burn_in else obs, rows))
        seen, mask, prior = self._read(obs)
        state, begins = batch.state, batch.begins
        assert state is not None and begins is not None, "a sequence for a core carries its state"
        if burn_in:
            with torch.no_grad():
                _, state = self.core(self._features(_rows(seen, slice(0, burn_in))), state, begins[:burn_in])
        features, _ = self.core(self._features(_rows(seen, slice(burn_in, None))), state, begins[burn_in:])
        mask, prior = (x if x is None else _pick(x[burn_in:], rows) for x in (mask, prior))
        return self._values(_pick(features, rows), mask, prior)

    @torch.no_grad()
    def largest(self, obs: Tensor) -> tuple[str, float]:
        """The largest |number| that the torso sees of `obs`, and the entry of a Dict that it is of; 0 where no real
        numbers are observed."""
        seen, *_ = self._read(obs)
        seen = seen if self.normalizer is None else self.normalizer(seen)
        entries = seen if isinstance(seen, dict) else {"": seen}
        sizes = {name: float(x.abs().max()) for name, x in entries.items() if x.is_floating_point() and x.numel()}
        return max(sizes.items(), key=lambda size: size[1], default=("", 0.0))

    @torch.no_grad()
    def observe(self, rows: Rows) -> None:
        """Let the normaliser, where there is one, count what was acted on in a block of rows."""
        if self.normalizer is not None:
            device = next(self.parameters()).device
            seen, *_ = self._read(torch.as_tensor(rows.obs[:-1]).to(device))
            self.normalizer.gather(seen, ~torch.as_tensor(rows.reset).to(device))

    def refresh(self) -> None:
        """Let the normaliser, where there is one, take over what it has counted."""
        if self.normalizer is not None:
            self.normalizer.refresh()

    def draw_from(self, generator: torch.Generator) -> bool:
        """Give every part that draws random numbers this generator; whether there is one."""
        drawing: list[Any] = [module for module in self.modules() if hasattr(module, "generator")]
        for module in drawing:
            module.generator = generator
        return bool(drawing)

    def _read(self, obs: Tensor) -> tuple[Any, Tensor | None, Tensor | None]:
        """What the torso sees, and where the record holds them the mask [..., A] of legal actions and the prior's
        log-probabilities [..., A]."""
        if not self.parts or obs.dtype != torch.uint8:
            return obs, None, None
        seen = split(self.parts, obs)
        mask, prior = seen.pop(MASK, None), seen.pop(PRIOR, None)
        return seen[OBSERVATION] if [*seen] == [OBSERVATION] else seen, mask, prior

    def _features(self, seen: Any) -> Tensor:
        if self.normalizer is not None:
            seen = self.normalizer(seen)
        if self.precision is None:
            return self.torso(seen)
        with torch.autocast(next(self.parameters()).device.type, self.precision, cache_enabled=False):
            features = self.torso(seen)
        return features.to(torch.get_default_dtype()) if features.is_floating_point() else features

    def _values(self, features: Tensor, mask: Tensor | None, prior: Tensor | None = None) -> Values:
        values = self.head(features, mask)
        values.prior = prior
        if mask is not None:
            values.q, values.mask = values.q.masked_fill(~mask, ILLEGAL), mask
        return values


def _pick(x: Tensor, rows: slice | Tensor) -> Tensor:
    """x [L, B, ...] at some rows [T, B, ...]."""
    if isinstance(rows, slice):
        return x[rows]
    return x[rows, torch.arange(x.shape[1], device=x.device)]


def _rows(seen: Any, rows: slice) -> Any:
    return {name: part[rows] for name, part in seen.items()} if isinstance(seen, dict) else seen[rows]
