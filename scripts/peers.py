"""`scripts/bench peers`: this program, Stable-Baselines3's DQN and DQN in one file at the same settings, CleanRL's.

What stands at the top needs no package: scripts/peer.py reads the settings here under any interpreter.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import sb3

if TYPE_CHECKING:
    from speeds import Report

ROOT = Path(__file__).resolve().parent.parent
TRAIN_EVERY = 10  # env_steps
START, STEPS = 10_000, 20_000  # env_steps before the first update, CleanRL's; and of a window, behind it
WARM = 100  # env_steps behind the start that still belong to it: their updates compile or capture what there is to
# Source: CleanRL, dqn.py; Huber loss and clipping are Stable-Baselines3's, so that all three do the same arithmetic.
SETTINGS: dict[str, Any] = {
    "env": "CartPole-v1", "hidden": [120, 84], "lr": 2.5e-4, "gamma": 0.99, "buffer": 10_000, "batch_size": 128,
    "train_every": TRAIN_EVERY, "target_every": 500, "epsilon": [1.0, 0.05], "epsilon_fraction": 0.5,
    "max_grad_norm": 10.0, "loss": "huber",
}  # fmt: skip


def overrides(start: int, total: int) -> list[str]:
    """SETTINGS as this program's overrides: the first update behind `start` env_steps, `total` of them in all."""
    of = SETTINGS
    return [
        *sb3.in_our_words("cartpole", total, arguments_of_sb3(start), of["hidden"]),
        f"max_grad_norm={of['max_grad_norm']}", f"tuned.loss={of['loss']}",
        f"exploration.epsilon.start={of['epsilon'][0]}", "tracking.evaluate_every=0", "tracking.checkpoint_every=0",
    ]  # fmt: skip


def arguments_of_sb3(start: int) -> dict[str, Any]:
    """SETTINGS as Stable-Baselines3 names them."""
    of, (first, last) = SETTINGS, SETTINGS["epsilon"]
    return {
        "policy": "MlpPolicy", "env": of["env"], "learning_rate": of["lr"], "buffer_size": of["buffer"],
        "learning_starts": start, "batch_size": of["batch_size"], "gamma": of["gamma"], "tau": 1.0,
        "train_freq": of["train_every"], "gradient_steps": 1, "target_update_interval": of["target_every"],
        "exploration_fraction": of["epsilon_fraction"], "exploration_initial_eps": first,
        "exploration_final_eps": last, "max_grad_norm": of["max_grad_norm"],
        "policy_kwargs": {"net_arch": of["hidden"]},
    }  # fmt: skip


def settings_of_one_file(start: int, total: int, seed: int) -> dict[str, Any]:
    """SETTINGS as the one-file program names them; all its random streams from one seed."""
    of, (first, last) = SETTINGS, SETTINGS["epsilon"]
    streams = ("seed_parameters", "seed_env", "seed_exploration", "seed_replay")
    return {
        "env_id": of["env"], "steps": total, "hidden": tuple(of["hidden"]), "lr": of["lr"], "gamma": of["gamma"],
        "capacity": of["buffer"], "batch_size": of["batch_size"], "learning_starts": start,
        "train_every": of["train_every"], "target_period": of["target_every"], "epsilon_start": first,
        "epsilon_end": last, "epsilon_steps": round(total * of["epsilon_fraction"]),
        "max_grad_norm": of["max_grad_norm"], **dict.fromkeys(streams, seed),
    }  # fmt: skip


LABELS = {"sb3": "Stable-Baselines3's DQN", "one-file": "DQN in one file"}


def window_of(program: str, options: dict[str, Any], number: int) -> dict[str, Any]:
    """One window in a process of its own, its seed the window's number; `start_s` is all that is not the window.

    Errors: reproduce.Failed, with the end of what the program printed.
    """
    from reproduce import call

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "window.json"
        python = options["sb3"] if program == "sb3" else sys.executable
        given = [*(f"{name}={options[name]}" for name in ("start", "steps", "device")), f"seed={number}", f"out={out}"]
        started = perf_counter()
        call(program, [python, str(Path(__file__).with_name("peer.py")), program, *given])
        took, found = perf_counter() - started, json.loads(out.read_text())
    return {**found, "start_s": took - found["seconds"]}


def check(options: dict[str, Any]) -> None:
    """Errors: UsageError for steps between two updates, and where there is no Stable-Baselines3."""
    from classic import need_sb3

    from dqn.types import UsageError

    for name in ("start", "steps"):
        if options[name] % TRAIN_EVERY:
            raise UsageError(
                f"{name}={options[name]} must be a multiple of {TRAIN_EVERY}: all then learn equally often."
            )
    try:
        need_sb3(options["sb3"])
    except ValueError as error:
        raise UsageError(str(error)) from error


def compare(options: dict[str, Any], extra: list[str]) -> Report:
    """A window of each program in turn. Errors: as `check`; RunError where the programs did not do the same work."""
    from floors import alternate
    from speeds import Report, engines_for, number, spread

    from dqn.execution.device import choose_device
    from dqn.types import RunError

    check(options)
    start, steps = options["start"], options["steps"]
    engines = engines_for(choose_device(options["device"])[0])
    names = [*engines, f"{engines[-1]}+process", *LABELS]
    found = alternate({name: partial(window_of, name, options) for name in names}, options["windows"])
    updates = {name: sorted({w["updates"] for w in windows}) for name, windows in found.items()}
    if any(counts != [steps // TRAIN_EVERY] for counts in updates.values()):
        raise RunError(f"The programs did not all learn {steps // TRAIN_EVERY} times in a window: {updates}.")
    speed = {LABELS.get(n, f"this program, {n}"): [steps / w["seconds"] for w in ws] for n, ws in found.items()}
    middle = {name: median(values) for name, values in speed.items()}
    rows = [
        [label, *spread(speed[label]), *(f"{middle[label] / middle[other]:.2f}" for other in LABELS.values()),
         number(median(w["start_s"] for w in found[name]))]
        for name, label in zip(names, speed, strict=True)
    ]  # fmt: skip
    of = SETTINGS
    notes = [
        f"{of['env']}, MLP {'-'.join(map(str, of['hidden']))} ReLU, Adam {of['lr']}, batch {of['batch_size']}, an "
        f"update every {of['train_every']} steps, target copied every {of['target_every']}, memory {of['buffer']:,}, "
        f"one environment, one core, {options['device']}; +process: execution.actor=process, on two cores.",
        f"Median of {options['windows']} windows of {steps:,} env_steps with {steps // TRAIN_EVERY:,} updates, the "
        f"programs in turn, each window a process. Start: imports, wiring, {start + WARM:,} env_steps before the window"
        f"{'' if start == START else f' (CleanRL fills {START:,} before the first update)'}, compiling.",
    ]  # fmt: skip
    total = start + WARM + steps
    settings = {"this program": overrides(start, total), "sb3": arguments_of_sb3(start),
                "one-file": settings_of_one_file(start, total, 0)}  # fmt: skip
    head = ["program", "env_steps/s", "from, to", "times SB3", "times one file", "start, s"]
    return Report(
        head, rows, notes, speed, "env_steps/s", more={"settings": settings, "runs": found, "options": options}
    )
