from dataclasses import replace

import pytest
import torch
from conftest import configure, world

from dqn.config import build
from dqn.errors import UsageError

SHORT = ["env=cartpole", "steps=600", "learning_starts=100", "replay.capacity=300", "env.num_envs=2"]


def learnt(trainer):
    ring = trainer.memory.ring
    return [*trainer.learner.state().values(), ring.action, ring.rows_since(torch.zeros_like(ring.written))["obs"]]


@pytest.mark.parametrize("replay", ["uniform", "prioritized"])
def test_a_memory_in_a_file_is_the_same_memory(wired, replay):
    usual, mapped = (wired(*SHORT, f"replay={replay}", f"replay.device={kind}") for kind in ("auto", "memmap"))
    for run in (usual, mapped):
        run.trainer.run()
    assert all(map(torch.equal, learnt(usual.trainer), learnt(mapped.trainer)))
    directory = mapped.trainer.directory
    assert f"MiB on a file in {directory}" in mapped.summary
    assert not (directory / "replay.obs").exists()  # nothing stays behind, not even after kill -9
    with open("/proc/self/maps") as maps:
        assert any(str(directory) in line and "deleted" in line for line in maps)  # and yet it lies there


def test_a_memory_in_a_file_is_resumed_into_a_new_one(wired):
    whole, part, rest = (wired(*SHORT, "replay.device=memmap").trainer for _ in range(3))
    whole.run()
    part.times = replace(part.times, steps=300)
    part.run()
    assert list(rest.restore(part.checkpoints.load()))
    rest.run()
    assert all(map(torch.equal, learnt(whole), learnt(rest)))


def test_bytes_and_images_lie_there_too(wired):
    trainer = wired(*world("test/Image-v0"), "torso=mlp", "steps=120", "learning_starts=50",
                    "replay.device=memmap").trainer  # fmt: skip
    trainer.run()
    assert trainer.memory.ring.obs.dtype == torch.uint8 and trainer.updates > 0


def test_what_is_no_place_or_too_large_for_it_is_refused(tmp_path):
    for place, says in (("ssd", "got 'ssd'"), ("cuda", "got cuda with device=cpu")):
        with pytest.raises(UsageError, match=rf"replay\.device must be auto.* {says}"):
            build.run(configure("env=chain", "device=cpu", f"replay.device={place}"), tmp_path)
    with pytest.raises(UsageError, match=r"GiB are free on a file in .* set replay\.capacity="):
        build.run(configure("env=cartpole", "replay.device=memmap", f"replay.capacity={10**13}"), tmp_path)
