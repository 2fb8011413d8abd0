"""torso=auto takes the torso that fits what is observed, says so, and takes the same one wherever a run is opened."""

import json

import gymnasium
import numpy as np
import pytest
import torch
from conftest import configure, here, world

import dqn
from dqn import train
from dqn.config.cli import CONF
from dqn.config.resume import stored_text
from dqn.errors import UsageError
from dqn.networks.convs import MinAtarCNN, NatureCNN
from dqn.networks.fitting import fitting
from dqn.networks.torsos import MLP, DictTorso
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import Checkpoints
from dqn.types import Spec

FEW = ["steps=60", "learning_starts=30", "replay.capacity=200", "replay.batch_size=4"]


def spec(dtype, *shape, states=0):
    return Spec(shape, np.dtype(dtype), 3, states)


@pytest.mark.parametrize(
    ("seen", "choice"),
    [
        (spec("float32", 4), "vector"), (spec("float32"), "vector"), (spec("int64", states=10), "vector"),
        (spec("uint8", 128), "vector"), (spec("bool", 9), "vector"), (spec("float32", 4, 3), "vector"),
        (spec("uint8", 84, 84, 4), "image"), (spec("uint8", 4, 84, 84), "image"), (spec("uint8", 210, 160, 3), "image"),
        (spec("uint8", 84, 84), "image"), (spec("uint8", 36, 36, 1), "image"), (spec("float32", 3, 64, 64), "image"),
        (spec("uint8", 4, 96, 96, 3), "image"), (spec("uint8", 4, 3, 96, 96), "image"),
        (spec("bool", 10, 10, 4), "small_image"), (spec("uint8", 7, 7, 3), "small_image"),
        (spec("float32", 4, 11, 11), "small_image"), (spec("uint8", 35, 35, 3), "small_image"),
        (spec("bool", 10, 10, 10), "small_image"), (spec("uint8", 12, 12), "vector"), (spec("bool", 2, 2, 3), "vector"),
        (spec("float32", 84, 84), "vector"), (spec("float32", 10, 3, 2), "vector"),
        (spec("float32", 2, 3, 8, 8, 3), "vector"), (spec("float32", 4, 8, 8, 3), "vector"),
    ],
)  # fmt: skip
def test_what_is_observed_tells_which_torso_fits(seen, choice):
    got, why = fitting(seen)
    assert got == choice
    assert seen.states or str(seen.obs_shape) in why
    parts = (("x", seen), ("y", spec("float32", 2)))
    assert fitting(Spec((0,), np.dtype(np.uint8), 3, 0, parts))[0] == ("vector" if choice == "vector" else "dict")


@pytest.mark.parametrize(
    ("overrides", "kind", "says"),
    [
        (["env=cartpole"], MLP, "MLP(hidden=[256, 256], norm=layer, layer=Linear()), auto: float32 (4,) is no image"),
        (["env=chain"], MLP, "auto: numbered states"),
        (
            [*world("test/Image-v0"), *FEW],
            NatureCNN,
            "NatureCNN(hidden=512, layout=auto, layer=Linear()), auto: uint8 (84",
        ),
        (
            [*world("test/Planes-v0"), *FEW],
            MinAtarCNN,
            "auto: float32 (4, 11, 11) is an image of 11 × 11, below 36 a side",
        ),
        (["env=tensor_breakout"], MinAtarCNN, "auto: bool (10, 10, 4) is an image of 10 × 10"),
        ([*world("test/DictImage-v0"), *FEW], DictTorso, "image: NatureCNN("),
        ([*world("test/DictImage-v0", "+env.kwargs.size=7"), *FEW], DictTorso, "own.where: MLP("),
        ([*world("test/Masked-v0"), *FEW], MLP, "auto: float32 (3,) is no image"),
    ],
)
def test_the_card_says_what_was_taken_and_why(wired, overrides, kind, says):
    run = wired(*overrides)
    assert type(run.trainer.learner.online.torso) is kind
    (line,) = (line for line in run.summary.splitlines() if line.startswith("  torso "))
    assert says in line


def test_the_result_names_the_torso_that_was_taken(tmp_path):
    tiny = ["torso.auto.small_image.hidden=4", "tracking.final_episodes=1", "tracking.evaluate_every=0"]
    code, _, errors = here(train, *world("test/Planes-v0"), *FEW, *tiny, f"run.dir={tmp_path}/run")
    assert code == 0, errors
    assert json.loads((tmp_path / "run" / "result.json").read_text())["parts"]["torso"] == "MinAtarCNN"


@pytest.mark.parametrize("overrides", [["env=cartpole"], ["env=chain", "algorithm=rainbow"], world("test/Masked-v0")])
def test_for_a_vector_it_is_the_mlp_to_the_last_bit(wired, overrides):
    """Its options stand where those of torso=mlp do."""
    hashes = set()
    for torso in ("auto", "mlp"):
        run = wired(*overrides, f"torso={torso}", "torso.hidden=[8]", "steps=150", "learning_starts=50")
        run.trainer.run()
        hashes.add(parameter_hash(run.trainer.learner.state()))
    assert len(hashes) == 1


def test_the_mlp_that_is_asked_for_is_taken_for_an_image(wired):
    assert type(wired(*world("test/Image-v0"), *FEW, "torso=mlp").trainer.learner.online.torso) is MLP


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["torso.hidden=[8]"], "torso.hidden is an MLP's, and torso=auto takes NatureCNN, because uint8 .* set "
                               "torso.auto.image.hidden, or choose torso=mlp"),
        (["torso.norm=layer"], "torso.auto.image.norm"),
        (["torso.auto.image.hidden=[8]"], "torso.hidden must be a whole number ≥ 1 or null for torso=nature_cnn"),
        (["+env.kwargs.shape=[40,40,40]"], "set torso.layout=hwc or chw, or choose torso=mlp"),
    ],
)  # fmt: skip
def test_numbers_for_another_torso_are_refused(wired, overrides, says):
    with pytest.raises(UsageError, match=says):
        wired(*world("test/Image-v0"), *FEW, *overrides)


def test_numbers_of_the_torso_that_is_taken_can_be_changed(wired):
    assert wired(*world("test/Image-v0"), *FEW, "torso.auto.image.hidden=9").trainer.learner.online.torso.features == 9
    impala = ["torso@torso.auto.image=impala_cnn", "torso.auto.image.hidden=7"]
    torso = wired(*world("test/Image-v0"), *FEW, *impala).trainer.learner.online.torso
    assert (type(torso).__name__, torso.features) == ("ImpalaCNN", 7)


def test_a_class_of_ones_own_is_taken_whatever_is_observed(wired):
    run = wired(*world("test/Image-v0"), *FEW, "torso._target_=worlds.Dropped", "torso.hidden=[4]")
    assert type(run.trainer.learner.online.torso).__name__ == "Dropped"


@pytest.mark.parametrize("overrides", [
    world("test/Image-v0", "torso.auto.image.hidden=8"), world("test/Planes-v0", "torso.auto.small_image.hidden=8"),
    world("test/DictImage-v0", "torso.hidden=[8]", "torso.auto.image.hidden=8"), ["env=cartpole", "torso.hidden=[8]"],
])  # fmt: skip
def test_a_resume_and_a_loaded_agent_have_the_same_network(wired, overrides):
    run, again = (wired(*overrides, *FEW) for _ in range(2))
    run.trainer.run()
    for _ in again.trainer.restore(Checkpoints(run.trainer.directory / "checkpoints").load()):
        pass
    (run.trainer.directory / "config.yaml").write_text(stored_text(configure(*overrides, *FEW)))
    agent = dqn.load(str(run.trainer.directory), trust=["worlds"])
    networks = run.trainer.learner.online, again.trainer.learner.online, agent.network
    assert len({parameter_hash(network.state_dict()) for network in networks}) == 1


def test_actors_in_another_process_have_it_too(wired):
    run = wired(*world("test/Planes-v0"), *FEW, "execution.actor=process", "torso.auto.small_image.hidden=8")
    run.trainer.run()
    assert run.trainer.updates > 0


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("cnn", [NatureCNN, MinAtarCNN])
def test_a_stack_of_colour_frames_is_an_image_with_the_channels_of_all(cnn, dtype, layout):
    torch.manual_seed(0)
    shape = {"hwc": (4, 40, 36, 3), "chw": (4, 3, 40, 36)}[layout]
    stacked, flat = cnn(spec(dtype, *shape), hidden=5), cnn(spec(dtype, 12, 40, 36), hidden=5)
    flat.load_state_dict(stacked.state_dict())
    obs = torch.randint(256, (2, 5, *shape)).to(getattr(torch, dtype))
    frames = obs.movedim(-1, -3) if layout == "hwc" else obs  # [2, 5, F, C, H, W]
    assert torch.allclose(stacked(obs), flat(frames.flatten(2, 3)), atol=1e-4, rtol=1e-4)
    assert stacked(obs).shape == (2, 5, 5)


@pytest.mark.parametrize("stack", [1, 4])
def test_colour_frames_stacked_by_gymnasium_are_learnt_from(wired, stack):
    wrapper = "+env.wrappers.stack={_target_: gymnasium.wrappers.FrameStackObservation, stack_size: 4}"
    run = wired(*world("test/Image-v0", "+env.kwargs.shape=[40,36,3]"), wrapper, *FEW, f"replay.frame_stack={stack}")
    run.trainer.run()
    torso = run.trainer.learner.online.torso
    assert (type(torso), torso.body[0].in_channels) == (NatureCNN, 12)


@pytest.mark.parametrize(
    ("shape", "torso", "says"),
    [
        ("4,11,11", "mlp", ""), ("4,11,11", "minatar_cnn", ""), ("40,40,2", "nature_cnn", ""),
        ("40,40,2", "impala_cnn", ""), ("50,50,2", "small_cnn", ""), ("11,11", "minatar_cnn", ""),
        ("2,3,4,5", "mlp", ""), ("2,3,2,3,2", "mlp", ""), ("2,3,2,3,2", "auto", ""), ("4,11,11", "auto", ""),
        ("4,2,11,11", "minatar_cnn", ""), ("2,3,2,3,2", "minatar_cnn", "choose torso=mlp"),
        ("4,11,11", "nature_cnn", "choose torso=minatar_cnn or torso=mlp"), ("4,11,11", "table", "choose torso=mlp"),
    ],
)  # fmt: skip
def test_real_numbers_of_any_number_of_axes_are_taken_by_every_torso_that_they_fit(wired, shape, torso, says):
    chosen = [*world("test/Planes-v0", f"+env.kwargs.shape=[{shape}]"), *FEW, f"torso={torso}"]
    if says:
        with pytest.raises(UsageError, match=says):
            wired(*chosen)
        return
    run = wired(*chosen)
    run.trainer.run()
    obs = run.trainer.memory.ring.obs
    (line,) = (line for line in run.summary.splitlines() if line.startswith("  memory "))
    said, mib = float(line.partition(" MiB")[0].split()[-1]), obs.numel() * 4 / 2**20
    assert mib - 0.05 <= said <= mib + 0.2  # it says what float32 takes
    assert run.trainer.evaluate(1)["lengths"] == [10]


class PlanesInADict(gymnasium.Env):
    """Planes of real numbers beside a vector."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Dict(
        planes=gymnasium.spaces.Box(-np.inf, np.inf, (3, 9, 9), np.float32),
        own=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    )

    def reset(self, *, seed=None, options=None):
        return {"planes": np.full((3, 9, 9), -2, np.float32), "own": np.zeros(2, np.float32)}, {}

    def step(self, action):
        return self.reset()[0], 1.0, True, False, {}


gymnasium.register("test/PlanesInADict-v0", entry_point=PlanesInADict)


@pytest.mark.parametrize("torso", [["torso=auto"], ["torso=dict", "torso@torso.image=minatar_cnn"]], ids=str)
def test_real_planes_in_a_dict_get_a_torso_for_images(wired, torso):
    run = wired(*world("test/PlanesInADict-v0"), *FEW, *torso)
    run.trainer.run()
    made = run.trainer.learner.online.torso
    kinds = dict(zip(made.names, map(type, made.torsos), strict=True))
    assert kinds == {"planes": MinAtarCNN, "own": MLP}


def test_every_torso_of_conf_was_thought_of_when_real_numbers_were_let_in():
    known = {
        "auto",
        "candidates",
        "dict",
        "impala_cnn",
        "impala_large",
        "minatar_cnn",
        "mlp",
        "nature_cnn",
        "small_cnn",
        "table",
    }
    assert {path.stem for path in (CONF / "torso").glob("*.yaml")} == known
