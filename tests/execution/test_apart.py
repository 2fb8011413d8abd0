import threading

import numpy as np
import pytest
import torch
from conftest import world

from dqn.types import RunError

RECIPES = {
    "dqn": ["env=cartpole", "steps=900", "learning_starts=200", "env.num_envs=2", "tuned.target_period=50"],
    "polyak": ["env=cartpole", "steps=600", "learning_starts=200", "target=polyak", "updates=2"],
    "rainbow": ["algorithm=rainbow", "env=cartpole", "steps=700", "learning_starts=200", "torso.hidden=[16]"],
    "drqn": ["algorithm=drqn", "env=chain", "steps=400", "learning_starts=50", "torso.hidden=[8]",
             "replay.length=4", "replay.batch_size=4"],
    "pqn": ["algorithm=pqn", "env=cartpole", "steps=800", "env.num_envs=4", "passes.minibatches=4"],
}  # fmt: skip


class Later:
    """A phase waits until somebody must have it, and runs there: what a learner of its own thread must equal."""

    apart = True

    def __init__(self):
        self.waiting = []

    def begin(self, phase):
        self.wait()
        self.waiting.append(phase)

    def wait(self):
        while self.waiting:
            self.waiting.pop()()


def learnt(trainer):
    return [*trainer.learner.state().values(), *trainer.actor.state().values(), trainer.memory.ring.action]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_learner_apart_is_the_same_whoever_is_faster(recipe, wired):
    options = [*RECIPES[recipe], "execution.apart=true"]
    threaded, again, later = (wired(*options).trainer for _ in range(3))
    together = wired(*RECIPES[recipe]).trainer
    later.learning = Later()
    where = set()
    inner = threaded.update

    def update():
        where.add(threading.current_thread() is threading.main_thread())
        return inner()

    threaded.update = update
    for trainer in (threaded, again, later, together):
        trainer.run()
    for mine, theirs, one_by_one in zip(*map(learnt, (threaded, again, later)), strict=True):
        assert torch.equal(mine, theirs) and torch.equal(mine, one_by_one)
    assert where == {False} and threaded.updates == together.updates > 0


def test_the_actor_acts_with_the_network_before_the_phase(wired):
    trainer = wired("env=cartpole", "steps=300", "learning_starts=100", "execution.apart=true").trainer
    seen = []
    follow = trainer.actor.follow

    def followed():
        follow()
        same = all(map(torch.equal, trainer.actor.network.parameters(), trainer.learner.online.parameters()))
        seen.append(same)

    trainer.actor.follow = followed
    trainer.run()
    assert len(seen) == trainer.updates > 10 and all(seen)
    assert not all(map(torch.equal, trainer.actor.network.parameters(), trainer.learner.online.parameters()))


def test_what_a_phase_raises_ends_the_run(wired):
    trainer = wired(*world("test/OneState-v0"), "steps=200", "learning_starts=10", "execution.apart=true").trainer

    def update():
        return torch.full((5,), np.nan), {}

    trainer.update = update
    with pytest.raises(RunError, match="The loss is not finite at update 1 "):
        trainer.run()
