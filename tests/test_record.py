"""Recordings of an agent: what they show is what was played, of every kind of environment, and training is the same."""

import json

import gymnasium
import numpy as np
import pytest
import torch
from conftest import here, world
from gymnasium.spaces import Box, Discrete
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dqn
from dqn import record, train
from dqn.envs.pictures import CHANNELS, picture
from dqn.envs.tensor import WORLDS
from dqn.tracking.video import BEST, INK, Canvas, Thinned
from dqn.types import ILLEGAL

iio = pytest.importorskip("imageio.v3", reason="pip install 'dqn-family[video]'")
pytest.importorskip("imageio_ffmpeg", reason="pip install 'dqn-family[video]'")
pytest.importorskip("pygame", reason="pip install 'dqn-family[video]'")
SHORT = ["steps=60", "learning_starts=20", "tracking.final_episodes=0", "tracking.evaluate_every=0", "execution=eager",
         "torso.hidden=[8]", "tuned.batch_size=8"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on CartPole."""
    directory = tmp_path_factory.mktemp("runs") / "one"
    code, _, errors = here(train, *SHORT, f"run.dir={directory}")
    assert code == 0, errors
    return directory


def recorded(directory, *words):
    """What the verb says of a run's recording, and the frames of its two files."""
    code, out, errors = here(record, f"run={directory}", f"out={directory}/v", *words)
    assert code == 0, errors
    frames = [iio.imread(path) for ending in ("mp4", "gif") for path in (directory / "v").glob(f"*.{ending}")]
    return out, *frames


def test_a_recording_is_of_the_episodes_that_it_says(run):
    out, mp4, gif = recorded(run, "episodes=2", "seed=3")
    lengths = [int(line.split()[-2]) for line in out.splitlines() if line.startswith("episode")]
    still = round(0.6 * 50)  # CartPole plays 50 frames a second
    assert len(mp4) == sum(lengths) + 2 * still
    assert mp4.shape[1:] == (400, 848, 3) and len(gif) <= 240
    again, _, _ = recorded(run, "episodes=2", "seed=3")
    assert again.splitlines()[:2] == out.splitlines()[:2]
    agent = dqn.load(str(run))
    found = agent.record(run / "python", episodes=2, seed=3)
    assert found["lengths"] == lengths and found["returns"] == [float(n) for n in lengths]
    assert [path.name for path in found["files"]] == ["60-steps.mp4", "60-steps.gif"]


def test_help_names_every_option():
    _, out, _ = here(record, "--help")
    assert out.startswith("usage: python -m dqn.record ") and all(f"{name}=" in out for name in record.OPTIONS)


def test_a_recording_ends_after_so_many_decisions(run):
    out, mp4, _ = recorded(run, "episodes=3", "steps=5")
    assert "in 5 steps, cut here" in out and "episode 2" not in out and len(mp4) == 5 + 30


@pytest.mark.parametrize(
    "words",
    [
        ["env=tensor_breakout", "torso=minatar_cnn", "torso.hidden=8"],
        ["env=chain", "algorithm=tabular"],
        ["algorithm=drqn", "replay.length=4", "replay.batch_size=4"],
        world("test/DictImage-v0", "torso=dict"),
    ],
    ids=lambda words: words[0] + words[1][:15] if len(words) > 1 else words[0],
)
def test_whatever_can_be_seen_is_recorded(tmp_path, words):
    """Channels, numbered states, networks that remember, and images of a Dict without a renderer."""
    short = [
        w for w in SHORT if not (w.startswith("torso") and any("torso" in one or "tabular" in one for one in words))
    ]
    short = [w for w in short if not (w.startswith("tuned.batch") and "algorithm=tabular" in words)]
    code, _, errors = here(train, *short, *words, f"run.dir={tmp_path}/run")
    assert code == 0, errors
    trust = ["trust=[worlds]"] if "env.imports=[worlds]" in words else []
    _, mp4, gif = recorded(tmp_path / "run", "episodes=1", "steps=8", *trust)
    assert len(mp4) > 4 and mp4.std() > 5 and gif.shape[1:3] == (240, round(mp4.shape[2] * 0.6))


def test_what_cannot_be_seen_is_refused_in_a_sentence(tmp_path):
    code, _, errors = here(train, *SHORT, *world("test/Counting-v0"), f"run.dir={tmp_path}/run")
    assert code == 0, errors
    code, _, errors = here(record, f"run={tmp_path}/run", "trust=[worlds]")
    assert code == 2 and "test/Counting-v0 does not render" in errors and len(errors.strip().splitlines()) == 1
    assert not [*(tmp_path / "run").glob("video/*")]


def test_video_every_puts_gifs_into_tensorboard_and_changes_nothing_else(tmp_path):
    hashes = []
    for every in (0, 30):
        words = [f"tracking.video_every={every}", "tracking.log_every=20", f"run.dir={tmp_path}/{every}"]
        code, _, errors = here(train, *SHORT, *words)
        assert code == 0, errors
        hashes.append(json.loads((tmp_path / str(every) / "result.json").read_text())["parameter_hash"])
    assert hashes[0] == hashes[1]
    events = EventAccumulator(str(tmp_path / "30"), size_guidance={"images": 0})
    events.Reload()
    images = events.Images("video/episode")
    assert [image.step for image in images] == [20, 40, 60]  # the first line of the log at or after 0, 30 and 60
    for image in images:
        frames = iio.imread(image.encoded_image_string, extension=".gif")
        assert frames.shape[1:] == (image.height, image.width, 3) and len(frames) > 5
    assert not [*(tmp_path / "0").glob("*.gif")]


@pytest.mark.gpu
@pytest.mark.parametrize("env", ["cartpole", "tensor_catch"])
def test_a_network_on_a_gpu_is_recorded_there(wired, env):
    run = wired(f"env={env}", "device=cuda", "steps=40", "learning_starts=20", "tracking.video_every=20",
                "tracking.log_every=20", "torso.hidden=[8]", "tuned.batch_size=8")  # fmt: skip
    run.trainer.run()
    (filming,) = run.filming
    assert filming.recorder.actor.device.type == "cuda" and not filming.blind and filming.filmed >= 2


def test_a_run_that_shows_nothing_goes_on_without_recordings(tmp_path):
    words = [*world("test/Counting-v0"), "tracking.video_every=20", "tracking.log_every=20", f"run.dir={tmp_path}/run"]
    code, out, errors = here(train, *SHORT, *words)
    assert code == 0, errors
    assert out.count("There are no recordings of this run: test/Counting-v0 does not render") == 1


class Corridor(gymnasium.Env):
    """Three actions, the last of them illegal; renders a bar that grows, and fails at it where it is `broken`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space, action_space = Box(0, 9, (2,)), Discrete(3)

    def __init__(self, render_mode=None, broken=False):
        self.render_mode, self.broken, self.step_number = render_mode, broken, 0

    def get_action_meanings(self):
        return ["STAY", "GO", "FLY"]

    def _shown(self):
        return np.full(2, self.step_number, np.float32), {"action_mask": np.array([1, 1, 0], np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return self._shown()

    def step(self, action):
        assert action != 2
        self.step_number += 1
        obs, info = self._shown()
        return obs, 1.0, self.step_number == 9, False, info

    def render(self):
        if self.broken:
            raise ZeroDivisionError("no paint")
        frame = np.zeros((60, 90, 3), np.uint8)
        frame[:, : 10 * self.step_number] = 255
        return frame


def trained(env, directory, **overrides):
    words = {
        "learning_starts": 20,
        "torso.hidden": [8],
        "tracking.final_episodes": 0,
        "execution": "eager",
        **overrides,
    }
    return dqn.train(env, steps=60, overrides=words, directory=directory, progress=False)


def test_masks_names_of_actions_and_the_last_frame_of_a_class_of_ones_own(tmp_path, monkeypatch):
    agent = trained(Corridor, tmp_path / "run")
    seen = []

    def keep(canvas, *given):
        seen.append((canvas.names, *given))
        return np.zeros((400, 320, 3), np.uint8)

    monkeypatch.setattr(Canvas, "__call__", keep)
    found = agent.record(episodes=1)
    assert found == {"returns": [9.0], "lengths": [9], "cut": False, "files": found["files"]}
    assert [path.parent for path in found["files"]] == [tmp_path / "run/video"] * 2
    assert seen[0][0] == ["stay", "go", "fly"] and len(seen) == 10
    for number, (_, frame, said, q, action) in enumerate(seen):
        assert (frame == 255).mean() == pytest.approx(
            number / 9
        )  # the frame is of the step that it says, the last one too
        assert said[1:] == [f"step {number}", f"return {number}"]
        if number < 9:
            assert q[2] == ILLEGAL and action == q.argmax() and np.abs(q[:2]).max() < 1e3
            assert q[:2] == pytest.approx(agent.q(np.full(2, number, np.float32), np.array([1, 1, 0], bool))[:2])
    assert seen[-1][3] is None and seen[-1][4] is None


def test_what_fails_at_rendering_is_named(tmp_path):
    agent = trained(Corridor, None, **{"env.kwargs.broken": True})
    with pytest.raises(dqn.UsageError, match=r"cannot render \(ZeroDivisionError: no paint"):
        agent.record(tmp_path)
    with pytest.raises(dqn.UsageError, match="say where its recording goes"):
        agent.record()


def test_an_environment_that_exists_once_is_not_filmed_while_it_trains(tmp_path):
    agent = trained(Corridor("rgb_array"), tmp_path / "run", **{"tracking.video_every": 20, "tracking.log_every": 20})
    assert "There are no recordings of this run" in (tmp_path / "run/train.log").read_text()
    assert agent.record(episodes=1)["returns"] == [9.0]


# What is drawn


def test_the_best_action_is_marked_by_its_colour_and_the_taken_one_by_a_triangle():
    canvas = Canvas(["left", "right", "up"])
    q = np.array([1.0, 3.0, ILLEGAL])
    shown = canvas(np.zeros((100, 100, 3), np.uint8), ["return 7"], q, 0)
    assert shown.shape[0] == 400 and shown.shape[1] % 16 == 0
    panel = shown[:, 401:].astype(int)
    best = np.abs(panel - BEST).sum(-1) == 0
    rows = best.any(1).nonzero()[0]
    assert best.any(1).sum() > 10 and rows.max() - rows.min() < 34  # one bar
    triangle = (np.abs(panel[:, 10:28] - INK).sum(-1) < 30).any(1)[60:]
    taken = triangle.nonzero()[0].mean() + 60
    assert taken < rows.min()  # the taken action stands above the best one
    nothing = canvas(np.zeros((100, 100, 3), np.uint8), ["return 7"], None, None)
    assert not (np.abs(nothing.astype(int) - BEST).sum(-1) == 0).any()


def test_a_bar_is_as_long_as_its_value_is_near_the_best():
    canvas = Canvas([str(a) for a in range(3)])
    shown = canvas(np.zeros((400, 100, 3), np.uint8), [], np.array([0.0, 1.0, 2.0]), 2).astype(int)
    longest = [(np.abs(shown - colour).sum(-1) == 0).sum(1).max() for colour in (BEST, (143, 182, 214))]
    assert longest[1] == pytest.approx((longest[0] - 4) / 2 + 4, abs=2)
    again = canvas(np.zeros((400, 100, 3), np.uint8), [], np.array([1.5, 1.5, 2.0]), 2).astype(int)
    other = (np.abs(again - np.array((143, 182, 214))).sum(-1) == 0).sum(1).max()
    assert other == pytest.approx((longest[0] - 4) * 0.75 + 4, abs=2)  # on the scale of the widest difference so far


@pytest.mark.parametrize("name", [*WORLDS])
def test_every_world_of_tensors_can_be_seen(name):
    made = WORLDS[name]()
    generator, device = torch.Generator().manual_seed(0), torch.device("cpu")
    state = made.reset(3, generator, device)
    frames = []
    for _ in range(6):
        obs = made.observe(state)[0].numpy()
        frames.append(picture(obs, type(made).__name__, made.spec.states))
        state, _, _ = made.step(state, torch.ones(3, dtype=torch.int64), generator)
    assert all(frame.dtype == np.uint8 and frame.shape[-1] == 3 for frame in frames)
    assert any((frame != frames[0]).any() for frame in frames[1:])


def test_pictures_of_observations():
    grey = np.zeros((4, 84, 84), np.uint8)
    grey[-1, 3, 5] = 200
    assert picture(grey)[3, 5].tolist() == [200] * 3 and picture(grey).shape == (84, 84, 3)
    assert picture(np.moveaxis(grey, 0, -1))[3, 5].tolist() == [200] * 3
    channels = np.zeros((10, 10, 6), bool)
    channels[2, 3, 4] = True
    assert picture(channels)[2, 3].tolist() == CHANNELS[4].tolist()
    colour = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert (picture(colour) == colour).all() and (picture(np.moveaxis(colour, -1, 0)) == colour).all()
    assert picture(np.zeros(4)) is None and picture(np.zeros((2, 3))) is None and picture(np.array(3)) is None
    assert picture(np.array(3), states=20).shape[-1] == 3


def test_a_long_recording_is_thinned_and_plays_as_fast():
    thinned = Thinned(fps=50, most=10)
    for number in range(100):
        thinned.add(np.full((20, 30, 3), number, np.uint8))
    assert len(thinned.frames) <= 10 and thinned.shape == (12, 18)
    gif = thinned.gif()
    assert iio.immeta(gif, extension=".gif")["duration"] * len(thinned.frames) == pytest.approx(2000, rel=0.3)
