"""The learner: descends the objective, keeps the target network."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dqn.learning.optimizer import begin
from dqn.learning.parameter_vector import ParameterVector
from dqn.programs import Prepare, as_written
from dqn.types import Batch

SHARED = "normalizer."  # what begins so in a network's state is one and the same in the target network
STATS = ("loss", "td_error", "q_mean", "q_max", "grad_norm")


def unchanged(gradient: Tensor) -> Tensor:
    """One learner alone: its gradient is what is stepped by."""
    return gradient


class Learner:
    """θ ← θ − lr · clip(∇L(θ)); the target network follows at its own pace.

    `polyak` ρ: a sync moves θ̄ ← θ̄ + ρ(θ − θ̄); ρ = 1 copies (Mnih et al., 2015), a small ρ after every update is
    Lillicrap et al. (2016); `polyak=None` has no target network: θ̄ is θ. `lr_schedule` is a factor on the
    optimizer's lr, a function of env_steps. `max_grad_norm` is a Euclidean bound on the whole gradient, or None.
    `reduce` is given each gradient as one vector before it is clipped and gives what is stepped by: where several
    learners learn as one, the mean of theirs.
    `passes` cuts each batch into shuffled minibatches (else it is one). `generators` are the random numbers of the
    online and the target network, each its own, where a part draws any.

    Errors: ValueError for ρ outside (0, 1] or a bound that is not positive.
    """

    def __init__(
        self,
        online: Any,
        objective: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        polyak: float | None = 1.0,
        max_grad_norm: float | None = None,
        lr_schedule: Callable[[int], float] | None = None,
        passes: Any = None,
        generators: tuple[torch.Generator, torch.Generator] | None = None,
        prepare: Prepare = as_written,
        reduce: Callable[[Tensor], Tensor] = unchanged,
    ):
        if polyak is not None and not 0 < polyak <= 1:
            raise ValueError(f"target.polyak must be in (0, 1], got {polyak}")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be > 0 or null, got {max_grad_norm}")
        self.online, self.objective, self.passes = online, objective, passes
        self.polyak, self.max_grad_norm, self.reduce = polyak, max_grad_norm, reduce
        shared = getattr(online, "normalizer", None)  # of both networks: what it counts is the world's, not learnt
        self.target = online if polyak is None else copy.deepcopy(online, {id(shared): shared}).requires_grad_(False)
        self.buffers = [[*net.buffers()] for net in (self.target, online)]  # looked up once
        self.generators = ()
        if generators is not None and self.target.draw_from(generators[1]) and online.draw_from(generators[0]):
            self.generators = generators
        slow: list[nn.Parameter] = online.head.slow_parameters() if hasattr(online.head, "slow_parameters") else []
        usual = [p for p in online.parameters() if all(p is not other for other in slow)]
        self.parameters = [*usual, *slow]
        self.vectors = [ParameterVector(some) for some in (usual, slow) if some]
        self.optimizer = optimizer([{"params": [v.vector]} for v in self.vectors])
        self.followers: list[ParameterVector] = []
        if polyak is not None:
            theirs = dict(zip(online.parameters(), self.target.parameters(), strict=True))
            self.followers = [ParameterVector([theirs[p] for p in vector.parameters]) for vector in self.vectors]
        if slow:
            self.optimizer.param_groups[1]["lr"] *= online.head.fraction_lr
        if any(group.get("dampening") for group in self.optimizer.param_groups):
            raise ValueError("optimizer.dampening must be 0: torch leaves it out of the first step alone")
        begin(self.optimizer)
        self.descend_program = prepare(self.descend_rows, self.optimizer)  # of one minibatch
        self.lr_schedule = lr_schedule
        self.lr = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def steps(self) -> int:
        """Gradient steps in one update."""
        return 1 if self.passes is None else self.passes.steps

    def update(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Learn from one batch; returns the statistics STATS [5], to be read at logging cadence, and the td_error
        [T, B] (None where the batch was taken apart)."""
        atoms, probs = self.objective.targets(self.online, self.target, batch)
        if self.passes is None:
            return self.descend(batch, atoms, probs)
        flat = self.passes.flatten(batch, atoms, probs)
        stats = torch.zeros(len(STATS), device=atoms.device)
        for rows in self.passes.rows(len(flat[0]), flat[0].device):
            stats = stats + self.descend_program(rows, *flat)  # added at once: a program writes over its results
        return stats / self.steps, None

    def descend_rows(self, rows: Tensor, *flat: Tensor) -> Tensor:
        """One gradient step on some rows of a batch that was taken apart; returns the statistics."""
        assert self.passes is not None
        return self.descend(*self.passes.part(rows, *flat))[0]

    def descend(self, batch: Batch, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """One gradient step towards given targets."""
        loss = self.objective.loss(self.online, batch, atoms, probs)
        grads = torch.autograd.grad(loss.total, self.parameters, allow_unused=True)
        norm = self._step(grads)
        value = loss.q.amax(-1)  # of the greedy action: what Mnih et al. (2015), fig. 2, watch
        stats = [loss.total.detach(), loss.td_error.abs().mean(), value.mean(), value.max(), norm]
        return torch.stack(stats), loss.td_error

    @torch.no_grad()
    def _step(self, grads: Sequence[Tensor | None]) -> Tensor:
        """g ← reduce(g), g ← g · min(1, bound / ‖g‖), then the optimizer's step; returns ‖g‖."""
        pieces = dict(zip(self.parameters, grads, strict=True))
        flat = [self.reduce(vector.flat([pieces[p] for p in vector.parameters])) for vector in self.vectors]
        norm = torch.linalg.vector_norm(flat[0] if len(flat) == 1 else torch.cat(flat))
        for vector, grad in zip(self.vectors, flat, strict=True):
            if self.max_grad_norm is not None:
                grad.mul_((self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            vector.vector.grad = grad
        self.optimizer.step()
        for vector in self.vectors:
            vector.vector.grad = None
        return norm

    @torch.no_grad()
    def sync_target(self) -> None:
        """θ̄ ← θ̄ + ρ(θ − θ̄), in place; nothing where there is no target network."""
        if self.polyak is not None:
            for mine, theirs in zip(self.followers, self.vectors, strict=True):
                mine.vector.lerp_(theirs.vector, self.polyak)
            for buffer, source in zip(*self.buffers, strict=True):
                buffer.copy_(source)

    def set_lr(self, env_steps: int) -> None:
        if self.lr_schedule is not None:
            factor = self.lr_schedule(env_steps)
            for group, lr in zip(self.optimizer.param_groups, self.lr, strict=True):
                if isinstance(group["lr"], Tensor):  # an engine made it one, to be changed in place
                    group["lr"].fill_(lr * factor)
                else:
                    group["lr"] = lr * factor

    def state(self) -> dict[str, Tensor]:
        """Everything the next update depends on, by name; the lr is the configuration's and is not in it."""
        tensors = {f"online/{k}": v for k, v in self.online.state_dict().items()}
        if self.polyak is not None:
            own = {k: v for k, v in self.target.state_dict().items() if not k.startswith(SHARED)}
            tensors |= {f"target/{k}": v for k, v in own.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in self._moments()}
        return tensors | {f"random/{i}": generator.get_state() for i, generator in enumerate(self._random())}

    def load(self, state: dict[str, Tensor]) -> None:
        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}

        for i, generator in enumerate(self._random()):
            generator.set_state(state[f"random/{i}"])
        online = part("online/")
        self.online.load_state_dict(online)
        if self.polyak is not None:
            shared = {k: v for k, v in online.items() if k.startswith(SHARED)}
            self.target.load_state_dict(part("target/") | shared)
        for name, tensor in self._moments():
            tensor.copy_(state[f"optimizer/{name}"])

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimizer keeps of each vector of parameters, by number and name."""
        for i, vector in enumerate(self.vectors):
            kept = self.optimizer.state[vector.vector]
            yield from ((f"{i}/{k}", v) for k, v in kept.items() if isinstance(v, Tensor))

    def _random(self) -> list[torch.Generator]:
        return [*self.generators, *([self.passes.generator] if self.passes is not None else [])]
