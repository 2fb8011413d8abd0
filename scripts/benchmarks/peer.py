"""One window of one program that `scripts/bench peers` compares, in a process of its own, on one core; with `+process`
after its engine on two, of which one acts; with as many threads as its settings say.

Stable-Baselines3 may live in a venv of its own: its part needs nothing of this package.
  PYTHONPATH=scripts PYTHON -m benchmarks.peer sb3 settings=cleanrl start=10000 steps=20000 seed=0 device=cpu out=FILE
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.settings import CLEANRL, SETTINGS, arguments_of_sb3, overrides, settings_of_one_file
from experiments.launch import ROOT


def this_program(
    engine: str, start: int, steps: int, seed: int, device: str, of: dict[str, Any] = CLEANRL
) -> dict[str, Any]:
    """One window of this program under an engine. Errors: RunError where the engine could not be used."""
    from benchmarks import floors

    begin, (engine, _, actor) = start + of["warm"], engine.partition("+")
    given = [*overrides(start, begin + steps, of), f"execution={engine}", f"device={device}", f"seed={seed}",
             f"execution.actor={actor or 'local'}"]  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        run = floors.wire(given, Path(directory))
        with floors.engine_holds(engine):
            floors.advance(run, begin)
        window = floors.advance(run, begin + steps)
        run.close()
    return {"seconds": window.seconds, "updates": window.updates, "versions": floors.versions()}


def game(env: str, seed: int) -> Any:
    """A game as env=atari plays it: sticky actions, every fourth frame, 84 × 84, four to a stack."""
    import ale_py
    import gymnasium
    from stable_baselines3.common.env_util import make_atari_env  # pyright: ignore[reportMissingImports]  # an extra
    from stable_baselines3.common.vec_env import VecFrameStack  # pyright: ignore[reportMissingImports]  # an extra

    gymnasium.register_envs(ale_py)
    raw = {"frameskip": 1, "repeat_action_probability": 0.0}
    sticky = {"terminal_on_life_loss": False, "action_repeat_probability": 0.25}
    return VecFrameStack(make_atari_env(env, seed=seed, env_kwargs=raw, wrapper_kwargs=sticky), 4)


def stable_baselines3(start: int, steps: int, seed: int, device: str, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """One window of Stable-Baselines3's DQN."""
    import stable_baselines3  # pyright: ignore[reportMissingImports]  # an extra
    import torch
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]  # an extra

    class Begin(BaseCallback):
        """Notes when the window begins: after the update at `begin`, before the next step."""

        at, updates, begin = 0.0, 0, start + of["warm"]

        def _on_rollout_start(self) -> None:
            if self.model.num_timesteps == self.begin:
                self.at, self.updates = perf_counter(), self.model._n_updates

        def _on_step(self) -> bool:
            return True

    arguments = arguments_of_sb3(start, of)
    if of["conf"] == "atari":
        arguments["env"] = game(of["env"], seed)
    model = stable_baselines3.DQN(**arguments, seed=seed, device=device)
    window = Begin()
    model.learn(window.begin + steps, callback=window)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {
        "seconds": perf_counter() - window.at,
        "updates": model._n_updates - window.updates,
        "versions": {m.__name__: m.__version__ for m in (stable_baselines3, torch)},
    }


def one_file(start: int, steps: int, seed: int, device: str, of: dict[str, Any] = CLEANRL) -> dict[str, Any]:
    """One window of the one-file program, which knows no device but the CPU."""
    sys.path.insert(0, str(ROOT / "tests"))
    from oracles import one_file_dqn  # pyright: ignore[reportMissingImports]  # after that path

    begin, at, epsilon = start + of["warm"], 0.0, one_file_dqn.epsilon

    def noting(step: int, settings: Any) -> float:  # asked for once a step, before it
        nonlocal at
        if step == begin:
            at = perf_counter()
        return epsilon(step, settings)

    one_file_dqn.epsilon = noting
    settings = one_file_dqn.Settings(**settings_of_one_file(start, begin + steps, seed, of))
    _, updates, _ = one_file_dqn.train(settings)
    before = of["warm"] // of["train_every"] * of["updates"]
    return {"seconds": perf_counter() - at, "updates": updates - before, "versions": {}}


def main(program: str, out: Path, *given: Any) -> None:
    """One window, on one core where there is one thread and one process; what it took is written to `out`."""
    threads = given[-1]["threads"]
    if hasattr(os, "sched_setaffinity") and "+" not in program and threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(threads)
    others = {"sb3": stable_baselines3, "one-file": one_file}
    window = others[program] if program in others else partial(this_program, program)
    out.write_text(json.dumps(window(*given)))


if __name__ == "__main__":
    asked = dict(argument.split("=", 1) for argument in sys.argv[2:])
    start, steps, seed = (int(asked[name]) for name in ("start", "steps", "seed"))
    main(sys.argv[1], Path(asked["out"]), start, steps, seed, asked["device"], SETTINGS[asked["settings"]])
