"""scripts/bench: what is counted, in which order windows are taken, what is said and refused; windows are tiny."""

import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from conftest import configure

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import bench, floors, peer, peers, report, settings, speeds  # noqa: E402
from experiments import classic  # noqa: E402

from dqn.errors import RunError  # noqa: E402
from dqn.execution.graphs import give_up  # noqa: E402


@pytest.fixture
def measured(tmp_path):
    """measured(command, option=value, …) → the numbers that it wrote; nothing is written outside tmp_path."""

    def run(command, *arguments):
        bench.main([command, *arguments, f"out={tmp_path}"])
        assert (tmp_path / f"{command}.png").stat().st_size > 1000
        return json.loads((tmp_path / f"{command}.json").read_text())

    return run


def test_the_floor_counts_the_products_of_both_networks_and_of_the_backward_pass(tmp_path):
    run = floors.wire([*settings.overrides(1000, 2000), "execution=eager"], tmp_path)
    floors.fill(run)
    assert (run.trainer.env_steps, run.trainer.updates) == (1000, 0)
    weights, inner = 4 * 120 + 120 * 84 + 84 * 2, 120 * 84 + 84 * 2
    forward = 2 * 128 * weights
    backward = 2 * 128 * (weights + inner)  # nobody asks for the gradient of the observations
    assert floors.flops(run.trainer.update) == 2 * forward + backward == 10_862_592  # online and target
    run.close()


def test_a_double_update_also_looks_ahead_with_the_online_network(tmp_path):
    run = floors.wire([*settings.overrides(1000, 2000), "execution=eager", "backup=double_q"], tmp_path)
    floors.fill(run)
    assert floors.flops(run.trainer.update) == 10_862_592 + 2 * 128 * (4 * 120 + 120 * 84 + 84 * 2)
    run.close()


def test_large_products_are_faster_than_a_small_one():
    a = torch.rand(16, 16)
    small = 2 * 16**3 / floors.timed(lambda: a @ a, 100, torch.device("cpu"))
    assert floors.rate(torch.device("cpu")) > small


def test_the_parts_of_the_time_sum_to_the_whole(measured, capsys):
    found = measured("stages", "learning_starts=200", "steps=800", "execution=eager")
    assert (found["env_steps"], found["updates"]) == (500, 50)
    assert {"env", "act", "store", "update", "sync", "log", "the rest"} == set(found["seconds"])
    assert sum(found["seconds"].values()) == pytest.approx(found["all"])
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert sum(values[0] for values in found["windows"].values()) == pytest.approx(1e6 * found["all"] / 500)
    printed = capsys.readouterr().out
    assert "sample + update" in printed and "500 env_steps and 50 updates" in printed
    assert printed.splitlines()[-1].startswith("Numbers in") and "next: scripts/bench" in printed


def test_engines_show_the_floor_below_what_was_measured(measured, capsys):
    found = measured("engines", "engines=eager", "windows=2", "calls=3", "learning_starts=100")
    assert [*found["windows"]] == ["eager"] and len(found["windows"]["eager"]) == 2
    assert found["flop"] == 10_862_592
    assert len(found["floors"]) == 2 and found["floor"] == pytest.approx(sum(found["floors"]) / 2)
    assert 0 < found["floor"] <= min(found["windows"]["eager"])
    assert {"date", "commit", "cpu", "cores", "versions", "gpu"} <= set(found["sitting"])
    assert "env=cartpole" in found["overrides"] and "learning_starts=100" in found["overrides"]
    assert "0.01086 GFLOP" in capsys.readouterr().out


def test_an_update_of_many_gradient_steps_is_counted_by_the_step(measured):
    small = ["env.num_envs=4", "replay.length=4", "passes.epochs=2", "passes.minibatches=4", "torso.hidden=[8]"]
    found = measured("engines", "engines=eager", "windows=1", "calls=1", "algorithm=pqn", *small)
    weights, inner, rows = 4 * 8 + 8 * 2, 8 * 2, 4 * 4
    targets, descent = rows * 2 * weights, 2 * rows * 2 * (2 * weights + inner)  # every row once, then in two epochs
    assert found["flop"] == (targets + descent) / 8
    assert 0 < found["floor"] <= found["windows"]["eager"][0]


def test_prioritised_replay_alone(measured):
    found = measured("per", "leaves=1000", "batch=8", "engines=eager", "windows=3", "calls=2", "device=cpu")
    assert len(found["windows"]["eager"]) == 3 and found["floor"] is None


def test_the_memory_that_is_drawn_from_is_full_and_reports_reach_it():
    step = speeds.drawing(500, 16, torch.device("cpu"))
    weight = step()
    assert weight.shape == (16,) and weight.max() == 1 and len(weight.unique()) > 8
    assert not torch.equal(weight, step())


def test_a_windows_place_is_beside_the_others():
    order = []
    found = floors.alternate({n: lambda window, n=n: order.append((n, window)) or window for n in "ab"}, 3)
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert found == {"a": [0, 1, 2], "b": [0, 1, 2]}


def test_an_engine_that_gave_up_is_not_measured():
    with pytest.raises(RunError, match=r"execution=compile: .*no compiler"), floors.engine_holds("compile"):
        give_up(RuntimeError("no compiler"))
    with floors.engine_holds("compile"):
        logging.getLogger("dqn").warning("Q has grown")


def test_a_table_lines_up_and_a_number_has_three_digits():
    rows = bench.table(["engine", "µs"], [["eager", "1,000"], ["compile", "9"]]).splitlines()
    assert rows == ["| engine  | µs    |", "| ------- | ----- |", "| eager   | 1,000 |", "| compile | 9     |"]
    assert [report.number(x) for x in (0.01234, 9.876, 100.4, 12345.6)] == ["0.0123", "9.88", "100", "12,346"]
    assert report.spread([3.0, 1.0, 2.0]) == ["2", "1 to 3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("peers windws=3", "windws=3 is not an option of scripts/bench peers (did you mean windows?)"),
        ("per steps=3", "steps=3 is not an option of scripts/bench per"),
        ("stages steps", "steps is not an option of scripts/bench stages"),
        ("stages gama=0.9", "gama is not an option (did you mean gamma?)"),
        ("stages algorithm=dqm", "algorithm=dqm is not known (did you mean dqn?)"),
        ("stages steps=100", "steps=100 leaves nothing to time"),
        ("engines windows=0", "windows must be a whole number above 0"),
        ("engines engines=warp", "warp is not an engine, choose from eager, compile, cudagraph"),
        ("engines execution=eager", "engines= chooses what is compared"),
        ("peers steps=15", "must be a multiple of 10"),
        ("peers settings=rllib", "settings=rllib is not known: choose from cleanrl, zoo, pong."),
        ("peers settings=zoo steps=100", "must be a multiple of 256"),
        ("peers sb3=no-python", "no-python has no stable-baselines3: install the extra"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        bench.main(arguments.split())
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert said in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_an_unknown_command_shows_the_usage(capsys):
    with pytest.raises(SystemExit) as left:
        bench.main(["speed"])
    assert left.value.code == 2 and "usage: scripts/bench stages" in capsys.readouterr().err


@pytest.fixture
def stubs(monkeypatch):
    """Programs that run nothing; `took` are the seconds of their windows, `order` what was asked for."""
    took = {"eager": [2.0, 4.0, 1.0], "eager+process": [0.5] * 3, "sb3": [4.0] * 3, "one-file": [1.0] * 3}
    order = []

    def window_of(program, options, number):
        order.append((program, number))
        return {"seconds": took[program][number], "updates": counts.get(program, 10), "start_s": 5.0, "versions": {}}

    counts = {}
    monkeypatch.setattr(peers, "window_of", window_of)
    monkeypatch.setattr(classic, "has", lambda python, module: True)
    monkeypatch.setattr(speeds, "engines_for", lambda device, asked="": ["eager"])
    return order, counts


def test_peers_take_turns_and_are_set_against_each_other(measured, stubs, capsys):
    found = measured("peers", "windows=3", "steps=100", "start=50")
    assert stubs[0] == [(program, n) for n in range(3) for program in ("eager", "eager+process", "sb3", "one-file")]
    assert found["windows"]["this program, eager"] == [50, 25, 100]
    rows = {row[0]: row[1:] for row in found["table"]}
    assert rows["this program, eager"] == ["50", "25 to 100", "2.00", "0.50", "5"]
    assert rows["DQN in one file"][2:4] == ["4.00", "1.00"]
    assert rows["this program, eager+process"][2:4] == ["8.00", "2.00"]
    printed = capsys.readouterr().out
    assert "(the settings say 10,000 before the first update)" in printed and "batch 128" in printed


def test_peers_that_learn_less_are_no_peers(measured, stubs, capsys):
    stubs[1]["sb3"] = 9
    with pytest.raises(SystemExit) as left:
        measured("peers", "windows=1", "steps=100")
    assert left.value.code == 1 and "did not all learn 10 times" in capsys.readouterr().err


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_all_programs_are_given_the_same_settings(name):
    of = settings.SETTINGS[name]
    cfg, sb3 = configure(*settings.overrides(500, 2000, of)), settings.arguments_of_sb3(500, of)
    one = settings.settings_of_one_file(500, 2000, 7, of)
    assert (cfg.env.id, cfg.env.num_envs) == (sb3["env"], 1) == (one["env_id"], 1)
    for ours, theirs, file in [
        (cfg.optimizer.lr, "learning_rate", "lr"), (cfg.replay.capacity, "buffer_size", "capacity"),
        (cfg.replay.batch_size, "batch_size", "batch_size"), (cfg.gamma, "gamma", "gamma"),
        (cfg.learning_starts, "learning_starts", "learning_starts"), (cfg.train_every, "train_freq", "train_every"),
        (cfg.target.period, "target_update_interval", "target_period"),
        (cfg.updates, "gradient_steps", "updates"), (cfg.max_grad_norm, "max_grad_norm", "max_grad_norm"),
        (cfg.exploration.epsilon.start, "exploration_initial_eps", "epsilon_start"),
        (cfg.exploration.epsilon.end, "exploration_final_eps", "epsilon_end"),
    ]:  # fmt: skip
        assert ours == sb3[theirs] == one[file]
    assert cfg.exploration.epsilon.steps == one["epsilon_steps"] == 2000 * sb3["exploration_fraction"]
    assert (cfg.n_step, cfg.torso.norm, cfg.head.loss) == (1, None, "huber")
    assert (cfg.execution.threads, one["seed_env"]) == (of["threads"], 7)


@pytest.mark.parametrize("of", [settings.CLEANRL, settings.ZOO])
def test_all_programs_are_given_the_same_network(of):
    cfg, sb3 = configure(*settings.overrides(500, 2000, of)), settings.arguments_of_sb3(500, of)
    theirs, one = sb3["policy_kwargs"]["net_arch"], settings.settings_of_one_file(500, 2000, 7, of)
    assert tuple(cfg.torso.hidden) == tuple(theirs) == one["hidden"] == tuple(of["hidden"])


def test_a_game_is_the_same_in_both_programs():
    cfg, sb3 = configure(*settings.overrides(500, 2000, settings.PONG)), settings.arguments_of_sb3(500, settings.PONG)
    assert (sb3["policy"], sb3["policy_kwargs"]) == ("CnnPolicy", {})
    assert (cfg.torso._target_, cfg.torso.hidden) == ("dqn.networks.convs.NatureCNN", 512)
    assert (cfg.reward_clip, cfg.replay.frame_stack, cfg.execution.threads) == (1, 4, 2)


def test_peers_that_play_a_game_need_it(stubs, monkeypatch, capsys):
    monkeypatch.setattr(classic, "has", lambda python, module: module == "stable_baselines3")
    with pytest.raises(SystemExit) as left:
        bench.main(["peers", "settings=pong", "sb3=THERE"])
    assert left.value.code == 2 and "THERE -m pip install ale-py opencv-python" in capsys.readouterr().err
    monkeypatch.setattr(classic, "has", lambda python, module: python == "THERE" or module == "stable_baselines3")
    with pytest.raises(SystemExit):  # and so does this program
        bench.main(["peers", "settings=pong", "sb3=THERE"])
    assert f"{sys.executable} -m pip install ale-py\n" in capsys.readouterr().err
    assert not stubs[0]


def test_a_recipe_that_is_named_brings_its_own_numbers():
    assert "tuned.batch_size=128" in speeds.composed([]) and "tuned=none" in speeds.composed(["env=acrobot"])
    named = speeds.composed(["algorithm=rainbow", "steps=5"])
    assert "steps=5" in named and "env=cartpole" in named
    assert not [o for o in named if o.startswith(("tuned", "train_every"))]


@pytest.mark.parametrize("program", [peer.one_file, lambda *given: peer.this_program("eager", *given)])
@pytest.mark.parametrize("settings", [settings.CLEANRL, {**settings.ZOO, "train_every": 50, "updates": 5, "warm": 50}])
def test_a_window_begins_behind_the_start(program, settings, monkeypatch):
    from oracles import one_file_dqn

    monkeypatch.setattr(one_file_dqn, "epsilon", one_file_dqn.epsilon)  # put back after the test
    monkeypatch.setattr(sys, "path", [*sys.path])
    began = floors.perf_counter()
    found = program(200, 100, 0, "cpu", settings)
    assert found["updates"] == 10
    assert 0 < found["seconds"] < floors.perf_counter() - began


def test_frames_are_a_world_of_images(wired):
    images = [
        "env=tensor",
        "env.world._target_=benchmarks.frames.Frames",
        "env.num_envs=2",
        "torso=nature_cnn",
        "torso.hidden=8",
    ]
    few = ["steps=60", "learning_starts=20", "train_every=20", "tuned.capacity=100", "tuned.batch_size=2"]
    run = wired(*images, *few)
    run.trainer.run()
    assert run.trainer.updates == 2 and run.trainer.memory.ring.obs.shape[2:] == (84, 84, 4)
    assert run.trainer.memory.ring.obs[:30].float().std() > 50  # noise, not nothing
