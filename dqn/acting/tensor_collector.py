"""The collector of tensor worlds: acting, stepping and gathering rows as one captured step."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from dqn.ops.clock import Times
from dqn.programs import Prepare, as_written
from dqn.types import Rows


class TensorCollector:
    """Environments that are tensors, and the actor in them; rows gather on the device, `ticks` to a block.

    The same door as collector.Collector. One tick is one call of the program that `prepare` makes of `tick`: nothing is
    asked of the device between two blocks.
    """

    due = False  # the environments' state is a part of every checkpoint: no actions need to be replayed

    def __init__(self, envs: Any, actor: Any, ticks: int, prepare: Prepare = as_written):
        self.envs, self.actor, self.ticks, self.num_envs = envs, actor, ticks, envs.num_envs
        seen = envs.begin(0)
        size, device = (ticks, envs.num_envs), seen.device
        self.rows = {
            "obs": seen.new_zeros(ticks, *seen.shape),
            "final_obs": seen.new_zeros(ticks, *seen.shape),
            "action": torch.zeros(size, dtype=torch.int64, device=device),
            "reward": torch.zeros(size, device=device),
            "terminated": torch.zeros(size, dtype=torch.bool, device=device),
            "truncated": torch.zeros(size, dtype=torch.bool, device=device),
        }
        if actor.remembers:
            self.rows["core"] = torch.zeros(*size, actor.remembered.shape[1], device=device)
        self.obs, self.remembered = seen.clone(), actor.remembered.clone()
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.begun, self.program = False, prepare(self.tick)

    @torch.no_grad()
    def tick(self) -> tuple[Tensor]:
        """Act, step, and write the row."""
        action, remembered = self.actor.policy(self.obs, self.remembered)
        tick = self.envs.tick(action)
        row = {**vars(tick), "obs": self.obs, "action": action, "core": self.remembered}
        for name, rows in self.rows.items():
            rows.index_copy_(0, self.at, row[name].to(rows.dtype)[None])
        over = (tick.terminated | tick.truncated).unsqueeze(-1)
        self.remembered.copy_(torch.where(over, 0.0, remembered))
        self.obs.copy_(tick.obs)
        self.at.add_(1)
        return (self.at,)

    def collect(self, now: int, times: Times, store: Callable[[Rows], None], seconds: dict[str, float]) -> int:
        """Act and step until anything is due; returns where env_steps stand. Rows go to `store` in blocks."""
        until = times.next_stop(now)
        while now < until:
            begin, used = perf_counter(), 0
            self.at.zero_()
            while now < until and used < self.ticks:
                self.actor.set_rate(self.actor.exploration.rate(now))
                self.program()
                now, used = now + self.num_envs, used + 1
            seconds["env"] += perf_counter() - begin
            store(self._take(used))
        return now

    def _take(self, used: int) -> Rows:
        rows = {name: x[:used] for name, x in self.rows.items()}
        over = rows["terminated"] | rows["truncated"]
        obs = torch.cat([rows.pop("obs"), self.obs[None]])
        return Rows(**rows, obs=obs, reset=torch.zeros_like(over), splits=over)

    def begin(self, seed: int) -> Rows | None:
        """Reset every environment; returns the rows that close what ran before, where something did."""
        last, begun, self.begun = self.obs.clone(), self.begun, True
        self.obs.copy_(self.envs.begin(seed))
        self.remembered.zero_()
        if not begun:
            return None
        nothing = torch.zeros(1, self.num_envs, dtype=torch.bool, device=last.device)
        core = torch.zeros_like(self.remembered)[None] if "core" in self.rows else None
        return Rows(torch.stack([last, self.obs]), nothing.long(), nothing.to(self.rows["reward"].dtype), nothing,
                    nothing, ~nothing, core=core)  # fmt: skip

    def close(self) -> None:
        self.envs.close()

    def state(self) -> dict[str, Tensor]:
        return {"obs": self.obs, "remembered": self.remembered, **{f"env/{k}": v for k, v in self.envs.state().items()}}

    def load(self, state: dict[str, Tensor]) -> None:
        self.begun = True
        self.obs.copy_(state["obs"])
        self.remembered.copy_(state["remembered"])
        self.envs.load({k.removeprefix("env/"): v for k, v in state.items() if k.startswith("env/")})

    def replay(self, seed: int) -> bool:
        """Nothing to bring back: `load` did."""
        return True
