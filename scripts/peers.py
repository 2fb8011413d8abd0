"""`scripts/bench peers`: this program, Stable-Baselines3's DQN and DQN in one file at the same settings.

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
# `start` env_steps go before the first update and `warm` more before a window: their updates compile or capture what
# there is to; `steps` make a window. Source: CleanRL, dqn.py; Huber loss and clipping are Stable-Baselines3's, so that
# all three do the same arithmetic.
CLEANRL: dict[str, Any] = {
    "env": "CartPole-v1", "hidden": [120, 84], "lr": 2.5e-4, "gamma": 0.99, "buffer": 10_000, "batch_size": 128,
    "train_every": 10, "updates": 1, "target_every": 500, "epsilon": [1.0, 0.05], "epsilon_fraction": 0.5,
    "max_grad_norm": 10.0, "loss": "huber", "start": 10_000, "warm": 100, "steps": 20_000, "threads": 1,
    "network": "MLP 120-84 ReLU", "programs": ["eager+process", "sb3", "one-file"],
    "conf": "cartpole", "ours": [], "theirs": {},  # beside what all have in common
}  # fmt: skip
_ZOO = sb3.ZOO["CartPole-v1"]
ZOO: dict[str, Any] = {  # its start of 1,000 is raised to where all three learn at the same steps; a run of 49,920
    **CLEANRL, "hidden": sb3.NETWORK, "lr": _ZOO["learning_rate"], "gamma": _ZOO["gamma"],
    "buffer": _ZOO["buffer_size"], "batch_size": _ZOO["batch_size"], "train_every": _ZOO["train_freq"],
    "updates": _ZOO["gradient_steps"], "target_every": _ZOO["target_update_interval"],
    "epsilon": [1.0, _ZOO["exploration_final_eps"]], "epsilon_fraction": _ZOO["exploration_fraction"],
    "start": 1024, "warm": 256, "steps": 48_640, "network": "MLP 256-256 ReLU",
}  # fmt: skip
PONG: dict[str, Any] = {  # the zoo's for Atari, but for a memory of 10,000; images pay for threads, a process has none
    **CLEANRL, "env": "ALE/Pong-v5", "hidden": [512], "lr": 1e-4, "batch_size": 32, "train_every": 4,
    "target_every": 1000, "epsilon": [1.0, 0.01], "epsilon_fraction": 0.1, "start": 1000, "steps": 600, "threads": 2,
    "network": "NatureCNN on four frames of 84 × 84", "programs": ["sb3"], "conf": "atari",
    "ours": ["reward_clip=1", "replay.frame_stack=4", "replay.frame_padding=zero", "execution.channels_last=true"],
    "theirs": {"policy": "CnnPolicy", "policy_kwargs": {}},
}  # fmt: skip
SETTINGS = {"cleanrl": CLEANRL, "zoo": ZOO, "pong": PONG}


def overrides(start: int, total: int, of: dict[str, Any] = CLEANRL) -> list[str]:
    """Settings as this program's overrides: the first update after `start` env_steps, `total` of them in all."""
    return [
        *sb3.in_our_words(of["conf"], total, arguments_of_sb3(start, of), of["hidden"]), *of["ours"],
        f"max_grad_norm={of['max_grad_norm']}", f"tuned.loss={of['loss']}", f"execution.threads={of['threads']}",
        f"exploration.epsilon.start={of['epsilon'][0]}", "tracking.evaluate_every=0", "tracking.checkpoint_every=0",
    ]  # fmt: skip


def arguments_of_sb3(start: int, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """Settings as Stable-Baselines3 names them."""
    first, last = of["epsilon"]
    return {
        "policy": "MlpPolicy", "env": of["env"], "learning_rate": of["lr"], "buffer_size": of["buffer"],
        "learning_starts": start, "batch_size": of["batch_size"], "gamma": of["gamma"], "tau": 1.0,
        "train_freq": of["train_every"], "gradient_steps": of["updates"], "target_update_interval": of["target_every"],
        "exploration_fraction": of["epsilon_fraction"], "exploration_initial_eps": first,
        "exploration_final_eps": last, "max_grad_norm": of["max_grad_norm"],
        "policy_kwargs": {"net_arch": of["hidden"]}, **of["theirs"],
    }  # fmt: skip


def settings_of_one_file(start: int, total: int, seed: int, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """Settings as the one-file program names them; all its random streams from one seed."""
    first, last = of["epsilon"]
    streams = ("seed_parameters", "seed_env", "seed_exploration", "seed_replay")
    return {
        "env_id": of["env"], "steps": total, "hidden": tuple(of["hidden"]), "lr": of["lr"], "gamma": of["gamma"],
        "capacity": of["buffer"], "batch_size": of["batch_size"], "learning_starts": start,
        "train_every": of["train_every"], "updates": of["updates"], "target_period": of["target_every"],
        "epsilon_start": first, "epsilon_end": last, "epsilon_steps": round(total * of["epsilon_fraction"]),
        "max_grad_norm": of["max_grad_norm"], **dict.fromkeys(streams, seed),
    }  # fmt: skip


MODULES = {"ale-py": "ale_py", "opencv-python": "cv2"}  # what packages bring
LABELS = {"sb3": "Stable-Baselines3's DQN", "one-file": "DQN in one file"}


def window_of(program: str, options: dict[str, Any], number: int) -> dict[str, Any]:
    """One window in a process of its own, its seed the window's number; `start_s` is all that is not the window.

    Errors: reproduce.Failed, with the end of what the program printed.
    """
    from reproduce import call

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "window.json"
        python = options["sb3"] if program == "sb3" else sys.executable
        chosen = [f"{name}={options[name]}" for name in ("settings", "start", "steps", "device")]
        given = [*chosen, f"seed={number}", f"out={out}"]
        started = perf_counter()
        call(program, [python, str(Path(__file__).with_name("peer.py")), program, *given])
        took, found = perf_counter() - started, json.loads(out.read_text())
    return {**found, "start_s": took - found["seconds"]}


def check(options: dict[str, Any]) -> dict[str, Any]:
    """The settings, whose own start and steps stand where none are given. Errors: UsageError for settings that are not
    known, for steps between two updates, and where there is no Stable-Baselines3."""
    from classic import has, need_sb3

    from dqn.errors import UsageError

    of = SETTINGS.get(options["settings"])
    if of is None:
        raise UsageError(f"settings={options['settings']} is not known: choose from {', '.join(SETTINGS)}.")
    for name in ("start", "steps"):
        options[name] = options[name] or of[name]
        if options[name] % of["train_every"]:
            raise UsageError(
                f"{name}={options[name]} must be a multiple of {of['train_every']}: all then learn equally often."
            )
    try:
        need_sb3(options["sb3"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    players = [(options["sb3"], ["ale-py", "opencv-python"]), (sys.executable, ["ale-py"])]
    for python, packages in players if of["conf"] == "atari" else []:
        if not all(has(python, MODULES[name]) for name in packages):
            raise UsageError(f"{python} cannot play Atari: {python} -m pip install {' '.join(packages)}")
    return of


def compare(options: dict[str, Any], extra: list[str]) -> Report:
    """A window of each program in turn. Errors: as `check`; RunError where the programs did not do the same work."""
    from floors import alternate
    from speeds import Report, engines_for, number, spread

    from dqn.device import choose_device
    from dqn.errors import RunError

    of = check(options)
    start, steps = options["start"], options["steps"]
    due = steps // of["train_every"] * of["updates"]
    engines = engines_for(choose_device(options["device"])[0])
    names = [*engines, *(name.replace("eager", engines[-1]) for name in of["programs"])]
    others = [LABELS[name] for name in names if name in LABELS]
    found = alternate({name: partial(window_of, name, options) for name in names}, options["windows"])
    updates = {name: sorted({w["updates"] for w in windows}) for name, windows in found.items()}
    if any(counts != [due] for counts in updates.values()):
        raise RunError(f"The programs did not all learn {due} times in a window: {updates}.")
    speed = {LABELS.get(n, f"this program, {n}"): [steps / w["seconds"] for w in ws] for n, ws in found.items()}
    middle = {name: median(values) for name, values in speed.items()}
    rows = [
        [label, *spread(speed[label]), *(f"{middle[label] / middle[other]:.2f}" for other in others),
         number(median(w["start_s"] for w in found[name]))]
        for name, label in zip(names, speed, strict=True)
    ]  # fmt: skip
    usual = "" if start == of["start"] else f" (the settings say {of['start']:,} before the first update)"
    notes = [
        f"{of['env']}, {of['network']}, Adam {of['lr']}, batch {of['batch_size']}, "
        f"{of['updates']} update(s) every {of['train_every']} steps, target copied every {of['target_every']}, memory "
        f"{of['buffer']:,}, one environment, {of['threads']} thread(s), {options['device']}."
        + " +process: execution.actor=process, on two cores." * any("+" in name for name in names),
        f"Median of {options['windows']} windows of {steps:,} env_steps with {due:,} updates, the programs in turn, "
        f"each window a process. Start: imports, wiring, {start + of['warm']:,} env_steps before the window{usual}, "
        "compiling.",
    ]  # fmt: skip
    total = start + of["warm"] + steps
    settings = {"this program": overrides(start, total, of), "sb3": arguments_of_sb3(start, of)}
    if "one-file" in names:
        settings["one-file"] = settings_of_one_file(start, total, 0, of)
    head = ["program", "env_steps/s", "from, to", *(f"times {other}" for other in others), "start, s"]
    return Report(
        head, rows, notes, speed, "env_steps/s", more={"settings": settings, "runs": found, "options": options}
    )
