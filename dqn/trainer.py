"""The trainer: time. Collect, store, learn, sync, evaluate, log, checkpoint, all counted in env_steps."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqn.errors import RunError, UsageError
from dqn.learning.learner import STATS
from dqn.ops.clock import Times, crossed
from dqn.protocols import Collector, Engine
from dqn.seeding import same_randomness, stream
from dqn.state import pack, unpack
from dqn.tracking.checkpoint import Checkpoints, Snapshot, save_batch
from dqn.tracking.logger import Logger, Progress
from dqn.tracking.meter import Meter
from dqn.tracking.value_warnings import ValueWarnings
from dqn.types import Rows

log = logging.getLogger("dqn")
Callback = Callable[["Trainer", dict[str, Any]], Any]
COUNTERS = ("env_steps", "updates", "points", "evaluated")  # kept in a checkpoint


@dataclass
class Trainer:
    """One run. Parts come wired from `build`; the trainer says only when each acts.

    `evaluate` (evaluator.Evaluator) gives the numbers of one evaluation and changes nothing here. Every multiple of
    `checkpoint_every` (and when the collector says it is due) is a synchronisation point: environments are re-seeded
    from (seed, number of the point) and reset, the running episodes are cut by a truncation. A checkpoint at any other
    moment (an interruption, the end) also holds the actions since the last point, which replayed bring the environments
    back; so every resume is exact.

    Each of `callbacks` is called as callback(trainer, numbers) after the log was written, an evaluation was played or a
    checkpoint was saved. `numbers` are what was logged, by tag, with `env_steps`, `updates` and, where one was saved,
    `checkpoint`. One that returns True ends the run there, as if its steps were done. One that raises ends it with a
    checkpoint and its own exception. Random numbers that a callback draws are not missing in the run.
    """

    collector: Collector
    actor: Any
    memory: Any
    learner: Any
    update: Callable[[], tuple[Tensor, tuple[Any, ...]]]  # sample and learn once, captured: STATS and what was drawn
    evaluate: Any
    times: Times
    seed: int
    gamma: float
    directory: Path
    logger: Logger
    engine: Engine
    callbacks: Sequence[Callback] = ()
    progress: bool = True  # show how far the run is

    def __post_init__(self) -> None:
        self.env_steps = self.updates = self.points = 0
        self.evaluated = -1
        self.ready = self.stop = self.unevaluated = False
        self.enough = False  # a callback has ended the run
        self.news: dict[str, Any] = {}  # what the callbacks have not been told yet
        self.value_warnings = ValueWarnings(self.learner, self.gamma)
        self.saved_at, self.drawn = -1, ()
        recorded = float(self.memory.ring.reward.nan_to_num().abs().max())
        self.meter = Meter(
            STATS,
            self.learner.parameters[0].device,
            self.collector.num_envs,
            recorded,
            self.collector.envs.episode_info,
        )
        self.checkpoints = Checkpoints(self.directory / "checkpoints")
        self.saved_rows = torch.zeros_like(self.memory.ring.written)
        self.parts = {
            "learner": self.learner, "memory": self.memory, "actor": self.actor, "collector": self.collector,
            "trainer": self,
        }  # fmt: skip

    def run(self) -> None:
        """From where the run stands to `times.steps`, or until `stop` is set; ends with a checkpoint."""
        times = self.times
        self.meter.begin(self.env_steps, self.updates)
        with closing(Progress(times.steps, self.env_steps, self.progress)) as progress:
            self.evaluate_when_due()  # the first, or one that a signal interrupted
            if not self.points:
                self.synchronise()
            self.tell()
            while self.env_steps < times.steps and not self.stop and not self.enough:
                before = self.env_steps
                self.env_steps = self.collector.collect(before, times, self.store, self.meter.seconds)
                last = max(before, self.env_steps - self.collector.num_envs)  # where the last tick began
                self.sync(crossed(before, last, times.target_period))
                self.learn(times.updates_due(before, self.env_steps))
                self.sync(crossed(last, self.env_steps, times.target_period))
                self.evaluate_when_due()
                if crossed(before, self.env_steps, times.log_every) or self.env_steps >= times.steps:
                    self.write_log()
                due = crossed(before, self.env_steps, times.checkpoint_every)
                if due or self.collector.due:
                    self.synchronise()
                if due:
                    self.checkpoint()
                progress.update(self.env_steps, self.meter.last_returns)
                self.tell()
        self.checkpoint()
        self.tell()

    @property
    def complete(self) -> bool:
        """All steps are done, or a callback has ended the run, and it is saved."""
        return self.saved_at == self.env_steps and (self.env_steps >= self.times.steps or self.enough)

    def tell(self) -> None:
        """Tell the callbacks what happened since they were told last, where anything did.

        The turn of the loop is over: what comes next is what comes next after a resume, so a checkpoint may be saved.
        """
        news, self.news = self.news, {}
        if not news or not self.callbacks:
            return
        news = {"env_steps": self.env_steps, "updates": self.updates, **news}
        try:
            with same_randomness():
                for callback in self.callbacks:
                    if callback(self, dict(news)) and not self.enough:
                        self.enough = True
                        log.info("A callback ended the run at %s steps.", f"{self.env_steps:,}")
        except (Exception, SystemExit):
            self.checkpoint()
            raise

    def store(self, rows: Rows) -> None:
        with self.meter.timed("store"):
            self.meter.note_rows(rows)
            self.learner.online.observe(rows)
            self.memory.ring.extend(rows)

    def learn(self, updates: int) -> None:
        """`updates` gradient steps; on a CPU each loss is checked at once, on a GPU when the log is written."""
        self.ready = self.ready or self.memory.ready()  # asked of the device only until it is so
        if not updates or not self.ready:
            return
        with self.meter.timed("update"):
            self.learner.set_lr(self.env_steps)
            self.memory.anneal(self.env_steps)
            self.learner.online.refresh()
            for _ in range(updates):
                stats, self.drawn = self.update()
                self.updates += self.learner.steps
                self.meter.note_update(stats)
                if stats.device.type == "cpu" and not isfinite(stats[0].item()):
                    self.diverged()
                if not self.times.target_period:
                    self.learner.sync_target()

    def sync(self, syncs: int) -> None:
        for _ in range(syncs):
            with self.meter.timed("sync"):
                self.learner.sync_target()

    def diverged(self) -> None:
        """End the run at a loss that is not finite, with the batch beside it and what to change."""
        path, batch = self.directory / "diverged.safetensors", self.memory.gather(*self.drawn).tensors()
        save_batch(path, batch)
        given = {"observations": batch["obs"], "rewards": batch["reward"]}
        wrong = [name for name, x in given.items() if x.is_floating_point() and not x.isfinite().all()]
        advice = "lower optimizer.lr or set max_grad_norm"
        if wrong:
            advice = f"its {' and '.join(wrong)} are not all finite, so correct what gave them"
        raise RunError(
            f"The loss is not finite at update {self.updates} (env_steps {self.env_steps}); the batch is in {path}: "
            f"{advice}."
        )

    def evaluate_when_due(self) -> None:
        """Before the first step and at every multiple of `evaluate_every`, unless it was done; the last step's is the
        closing evaluation."""
        every, now = self.times.evaluate_every, self.env_steps
        due = crossed(self.evaluated, now, every) > 0 or (self.evaluated < 0 and every > 0)
        if due and now < self.times.steps:
            evaluation = self.write_evaluation()
            if evaluation is not None and not self.stop:
                log.info(
                    "%s steps, evaluation of %d episodes: %.1f ± %.1f",
                    f"{now:,}", evaluation["episodes"], evaluation["mean"], evaluation["std"],
                )  # fmt: skip
            if self.evaluate.training is not None and self.points and not self.stop:
                self.synchronise()  # the evaluation played in the environments of training
        if not self.stop:
            self.evaluated = now

    def write_evaluation(self) -> dict[str, Any] | None:
        """Evaluate over the usual number of episodes and log it; None where there is no environment to play in."""
        with self.meter.timed("evaluate"):
            try:
                return self.log_evaluation(self.evaluate(stop=lambda: self.stop, longest=self.meter.longest()))
            except UsageError as error:
                self.no_evaluation(error)
                return None

    def log_evaluation(self, result: dict[str, Any], logged: bool = True) -> dict[str, Any]:
        if logged and not self.stop:  # it is whole
            known = {f"qstar/{k}": v for k, v in result.get("known_q", {}).items() if k.endswith("_error")}
            numbers = {"return": result["mean"], "std": result["std"], "length": float(np.mean(result["lengths"]))}
            episode_info = {f"info/{k}": v["mean"] for k, v in result.get("info", {}).items() if v["mean"] is not None}
            numbers |= episode_info
            tagged = {**{f"evaluation/{k}": v for k, v in numbers.items()}, **known}
            self.logger.scalars(tagged, self.env_steps)
            self.news |= tagged
        return result

    def no_evaluation(self, error: UsageError) -> None:
        """Training goes on without evaluations where no second environment can be made; said once."""
        if not self.unevaluated:
            self.unevaluated = True
            log.warning(
                "There are no evaluations during training, because no environment can be made beside those that play: "
                "%s Set tracking.evaluate_in=training, or tracking.evaluate_every=0.",
                error,
            )

    def close_evaluation(self, episodes: int, logged: bool) -> dict[str, Any]:
        """The closing evaluation. The environments of training are closed first, unless it plays in them: of some
        simulators only one can run. Errors: UsageError where there is no environment to play in."""
        if self.evaluate.training is None:
            self.collector.close()
        log.info("Evaluating %d episodes …", episodes)
        with self.meter.timed("evaluate"):
            return self.log_evaluation(
                self.evaluate(episodes, stop=lambda: self.stop, longest=self.meter.longest()), logged
            )

    def write_log(self) -> None:
        """The only place where the numbers of the learner are read."""
        with self.meter.timed("log"):
            numbers = self.meter.read(self.env_steps, self.updates)
            numbers |= {
                "replay/fill": self.memory.ring.fill(),
                f"exploration/{self.actor.exploration.name}": self.actor.exploration.rate(self.env_steps),
                "learner/lr": float(self.learner.optimizer.param_groups[0]["lr"]),
            }
            self.logger.scalars(numbers, self.env_steps)
            self.news |= numbers
            if not np.isfinite(numbers.get("learner/loss", 0.0)):
                self.diverged()
            if "learner/q_max" in numbers:
                reward = min(self.meter.largest_reward, self.memory.clip)
                self.value_warnings.read(numbers["learner/q_max"], reward, self.largest_seen())

    def largest_seen(self) -> tuple[str, float]:
        """The largest |number| that the torso saw of the last batch, and the entry of a Dict that it was of."""
        online = self.learner.online
        if not self.drawn or not (online.parts or self.memory.ring.obs.is_floating_point()):
            return "", 0.0
        return online.largest(self.memory.gather(*self.drawn).obs.to(self.meter.sums.device))

    # Resume: the state of time itself, and the two ways into it.

    def synchronise(self) -> None:
        """Cut the running episodes and begin every environment anew from (seed, number of this point)."""
        rows = self.collector.begin(stream(self.seed, "env", self.points))
        self.points += 1
        self.meter.begin_episodes()
        if rows is not None:
            self.memory.ring.cut()
            self.memory.ring.extend(rows)

    def checkpoint(self) -> None:
        if self.saved_at == self.env_steps:
            return
        with self.meter.timed("checkpoint"):
            counters = {name: getattr(self, name) for name in COUNTERS} | self.meter.spent()
            counters["engine"] = self.engine.chosen
            ring = self.memory.ring
            if not self.checkpoints.complete():
                self.saved_rows = torch.zeros_like(ring.written)
            rows = ring.rows_since(self.saved_rows)
            self.checkpoints.save(self.env_steps, pack(self.parts), rows, ring.written, ring.rows, counters)
            self.saved_rows, self.saved_at = ring.written.clone(), self.env_steps
            self.logger.flush()
            self.news["checkpoint"] = str(self.checkpoints.directory)

    def restore(self, snapshot: Snapshot) -> Iterator[str]:
        """Continue from a checkpoint; yields a line about each restored part."""
        for name in COUNTERS:
            setattr(self, name, snapshot.counters[name])
        self.meter.go_on(snapshot.counters)
        self.engine.choose(snapshot.counters["engine"])
        for chunk in snapshot.chunks:
            self.memory.ring.restore_rows(chunk)
        self.checkpoints.chunks = snapshot.files
        # what the chunks hold; a synchronisation point during the restore comes after it and must be saved again
        self.saved_rows = snapshot.tensors["memory/ring/written"].to(self.saved_rows.device)
        self.saved_at = self.env_steps
        yield f"replay: {len(snapshot.chunks)} chunks of rows"
        yield from unpack(self.parts, snapshot.tensors)
        yield f"counters: {self.env_steps:,} env_steps, {self.updates:,} updates"

    def state(self) -> dict[str, Tensor]:
        rng_state = torch.get_rng_state()  # for parts that draw from torch's own stream
        return {**self.meter.episodes.state(), "torch": rng_state}

    def load(self, state: dict[str, Tensor]) -> None:
        """Bring the environments back: begin the last point again and replay the actions since."""
        self.meter.episodes.load(state)
        torch.set_rng_state(state["torch"])
        if not self.collector.replay(stream(self.seed, "env", self.points - 1)):
            log.warning("The environment is not deterministic given a seed: this resume begins new episodes.")
            self.synchronise()
