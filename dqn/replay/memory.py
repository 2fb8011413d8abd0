"""The replay memory: sample starts, gather their windows, fold the returns."""

import torch
from torch import Tensor

from dqn.ops.returns import n_step
from dqn.protocols import Sampler
from dqn.replay.ring import Ring
from dqn.types import Batch


class Memory:
    """A ring and a sampler that make `Batch`es of n-step returns.

    A transition (T = 1, no core) brings two rows of observations: s_t and the one to bootstrap from, s_{t+k}. A
    sequence brings `burn_in` rows, `length` rows T and the `steps` rows n after them, with what the core remembered
    before the first (zeros unless `stored_state`: Kapturowski et al., 2019, §3) and the rows where it must forget.
    Steps of a sequence that were no decisions weigh 0. Rewards are kept as they are and cut to ± `reward_clip` as they
    are drawn (Mnih et al., 2015, §Methods).
    """

    def __init__(
        self, ring: Ring, sampler: Sampler, gamma: float, steps: int, generator: torch.Generator,
        length: int = 1, burn_in: int = 0, stored_state: bool = True, reward_clip: float | None = None,
    ):  # fmt: skip
        self.ring, self.sampler, self.gamma, self.generator = ring, sampler, gamma, generator
        self.length, self.burn_in, self.stored_state = length, burn_in, stored_state
        self.clip = float("inf") if reward_clip is None else reward_clip
        self.sequence = length > 1 or "core" in ring.fields
        device = ring.device
        self.offsets = torch.arange(steps if not self.sequence else burn_in + length + steps, device=device)[:, None]
        inside = torch.arange(burn_in, burn_in + length, device=device)
        self.windows = torch.arange(steps, device=device)[:, None] + inside  # [n, T] rows of each return
        self.learnt = inside[:, None] - burn_in  # [T, 1]
        sampler.attach(ring)

    @staticmethod
    def window_for(steps: int, length: int = 1, burn_in: int = 0) -> int:
        """Rows that must be written after a start before it is legal."""
        return burn_in + length - 1 + steps

    def anneal(self, env_steps: int) -> None:
        """Set what varies with time."""
        self.sampler.anneal(env_steps)

    def ready(self) -> bool:
        return self.sampler.ready(self.ring)

    def sample(self) -> Batch:
        return self.gather(*self.sampler.sample(self.ring, self.generator))

    def gather(self, slot: Tensor, env: Tensor, weight: Tensor) -> Batch:
        """The batch from these starts: slot [B], env [B] and weight [B] or [T, B], a sampler's or a batch's."""
        flat = (slot + self.offsets) % self.ring.rows * self.ring.num_envs + env  # [·, B]; take() reads [R, E] as a row
        return self._sequence(slot, env, weight, flat) if self.sequence else self._transition(slot, env, weight, flat)

    def _rewards(self, rows: Tensor) -> Tensor:
        reward = self.ring.reward.take(rows)
        return reward if self.clip == float("inf") else reward.clamp(-self.clip, self.clip)

    def _transition(self, slot: Tensor, env: Tensor, weight: Tensor, flat: Tensor) -> Batch:
        ring = self.ring
        terminated = ring.terminated.take(flat)
        done = terminated | ring.truncated.take(flat)
        reward, discount, k = n_step(self._rewards(flat), terminated, done, self.gamma)
        bootstrap = ((slot + k) % ring.rows) * ring.num_envs + env
        return Batch(
            obs=ring.observations_at(torch.stack([flat[0], bootstrap])),
            action=ring.action.take(flat[:1]),
            reward=reward[None],
            discount=discount[None],
            weight=weight,
            done=done[:1],
            slot=slot,
            env=env,
        )

    def _sequence(self, slot: Tensor, env: Tensor, weight: Tensor, flat: Tensor) -> Batch:
        ring, inside = self.ring, flat[self.burn_in : self.burn_in + self.length]  # [T, B]
        shape, rows = inside.shape, flat[self.windows].flatten(1)  # [n, T·B]
        terminated = ring.terminated.take(rows)
        done = terminated | ring.truncated.take(rows)
        reward, discount, k = (x.unflatten(0, shape) for x in n_step(self._rewards(rows), terminated, done, self.gamma))
        reset = ring.reset.take(flat)  # [P+T+n, B]
        state = ring.core[slot, env]
        return Batch(
            obs=ring.observations_at(flat),
            action=ring.action.take(inside),
            reward=reward,
            discount=discount,
            weight=weight * ~reset[self.burn_in : self.burn_in + self.length],
            bootstrap=self.learnt + k,
            done=done[0].unflatten(0, shape),
            state=state if self.stored_state else torch.zeros_like(state),
            begins=torch.cat([torch.zeros_like(reset[:1]), reset[:-1]]),
            burn_in=self.burn_in,
            slot=slot,
            env=env,
        )

    def report(self, batch: Batch, td_error: Tensor | None) -> None:
        """Tell the sampler how wrong the predictions were."""
        if td_error is not None and batch.slot is not None and batch.env is not None:
            td_error = td_error.to(batch.weight.device)
            valid = batch.weight.expand(td_error.shape) > 0
            self.sampler.report(batch.slot, batch.env, td_error, valid)

    def state(self) -> dict[str, Tensor]:
        return {
            **{f"ring/{k}": v for k, v in self.ring.state().items()},
            **{f"sampler/{k}": v for k, v in self.sampler.state().items()},
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        self.ring.load({k: state[f"ring/{k}"] for k in self.ring.state()})
        self.sampler.load({k: state[f"sampler/{k}"] for k in self.sampler.state()})
        self.generator.set_state(state["generator"])
