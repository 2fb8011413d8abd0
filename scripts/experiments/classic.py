"""Classic control and LunarLander, every recipe and Stable-Baselines3 on equal terms: numbers, table and picture.

Every finished run lands in scripts/results/classic.json, whichever machine made it; a run that lies there with the
settings conf/ has now is not repeated. A row never mixes settings: the first run with new ones removes the older runs.
`show` makes README's table and scripts/results/classic.png from that file and trains nothing.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import launch, pool, results, sb3

ENVS = {"cartpole": 50_000, "acrobot": 100_000, "mountaincar": 120_000, "lunarlander": 100_000}  # env_steps
IDS = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "mountaincar": "MountainCar-v0",
    "lunarlander": "LunarLander-v3",
}
RECIPES = {  # name → overrides; numbers tuned for a pair come from conf/experiment by themselves
    "dqn": ["algorithm=dqn"],
    "double+dueling+n-step+per": [
        "algorithm=dqn", "backup=double_q", "output=dueling", "n_step=3", "replay=prioritized",
    ],
    "qr_dqn": ["algorithm=qr_dqn"],
    "munchausen": ["algorithm=munchausen"],
    "rainbow": ["algorithm=rainbow"],
    "pqn": ["algorithm=pqn"],
}  # fmt: skip
SB3, ZOO = "sb3", "dqn-zoo"  # the same settings in two programs
ROWS = [*RECIPES, ZOO, SB3]
LATER = {  # options that older runs were without, and what those did
    "env.wrappers": {}, "replay.frame_stack": 1, "replay.frame_padding": "reset", "tracking.evaluate_envs": 16,
    "reward_clip": None,
}  # fmt: skip
JSON = launch.FIGURES / "classic.json"
README = launch.ROOT / "scripts" / "README.md"
USAGE = (
    f"usage: scripts/reproduce classic [show] [env={','.join(ENVS)}] [recipe={','.join(ROWS)}]\n"
    "  [seeds=10] [jobs=CPUS] [device=cpu] [sb3=PYTHON that has stable-baselines3]\n"
    "  [option=value …]  a trial: these go to every run, and the numbers not into scripts/results/classic.json"
)


@dataclass(frozen=True)
class Run:
    """One training run; `settings` is the hash of everything that decides its outcome but the seed."""

    env: str
    recipe: str
    seed: int
    steps: int
    overrides: tuple[str, ...]
    settings: str

    def __str__(self) -> str:
        return f"{self.env} {self.recipe} seed {self.seed}"

    @property
    def pair(self) -> tuple[str, str]:
        return self.env, self.recipe

    @property
    def key(self) -> str:
        return f"{self.env}/{self.recipe}/{self.seed}"

    @property
    def name(self) -> str:
        return f"classic/{self.env}-{self.recipe}-{self.settings}"


def fingerprint(recipe: str, overrides: list[str], env: str, steps: int) -> str:
    """A hash of the composed configuration without what only names, logs or places a run; of SB3 its own table."""
    if recipe == SB3:
        return results.digest(
            {"env": env, "steps": steps, "network": sb3.NETWORK, "episodes": sb3.EPISODES, **sb3.ZOO[IDS[env]]}
        )
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from dqn.config.cli import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=overrides)
    composed.run = None  # its name takes the time of day
    cfg: Any = OmegaConf.to_container(composed, resolve=True)
    for name in ("seed", "run", "resume", "device", "execution", "tuned"):  # tuned numbers stand where they are used
        cfg.pop(name, None)
    cfg["replay"].pop("device", None)
    for name, usual in LATER.items():
        section, _, option = name.rpartition(".")
        place = cfg[section] if section else cfg
        if place.get(option) == usual:
            place.pop(option, None)
    cfg["tracking"] = {k: v for k, v in cfg["tracking"].items() if k.startswith(("final_", "evaluate_"))}
    return results.digest(cfg)


def overrides_of(env: str, recipe: str, steps: int) -> list[str]:
    """A row's overrides; of ZOO what Stable-Baselines3 is given, in this program's words."""
    if recipe != ZOO:
        return [f"env={env}", *RECIPES.get(recipe, []), f"steps={steps}"]
    return sb3.in_our_words(env, steps, sb3.ZOO[IDS[env]], sb3.NETWORK)


@functools.cache
def has(python: str, module: str) -> bool:
    """Whether an interpreter can import a module."""
    code = f"import sys, importlib.util as u; sys.exit(u.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError:
        return False


def need_sb3(python: str) -> None:
    """Errors: ValueError that says what to do where an interpreter has no Stable-Baselines3."""
    if not has(python, "stable_baselines3"):
        raise ValueError(
            f"{python} has no stable-baselines3: install the extra (.[sb3]), or into a venv of its own, and name that "
            "with sb3=VENV/bin/python."
        )


def prepare(env: str, recipe: str, steps: int, extra: list[str], python: str) -> tuple[tuple[str, ...], str]:
    """Overrides and settings of a pair. Errors: ValueError that says what it lacks, and what to do."""
    if recipe == SB3:
        need_sb3(python)
    if env == "lunarlander" and not has(python, "Box2D"):
        raise ValueError(f'{python} has no Box2D: {python} -m pip install "gymnasium[box2d]"')
    overrides = [*overrides_of(env, recipe, steps), *extra]
    try:
        return tuple(overrides), fingerprint(recipe, overrides, env, steps)
    except Exception as error:  # Hydra's: a recipe that is not there, an unknown option
        from dqn.config.cli import explain

        raise ValueError(explain(error)) from error


def chosen(options: dict[str, str], option: str, known: list[str]) -> list[str]:
    names = options.get(option, ",".join(known)).split(",")
    for name in set(names) - set(known):
        sys.exit(f"{option}={name} is not known: choose from {', '.join(known)}.")
    return names


def plan(options: dict[str, str], extra: list[str]) -> list[Run]:
    """All runs asked for, one seed of everything after the other; what cannot run is named in a sentence, left out."""
    pairs, obstacles = [], defaultdict(list)
    given = next((a.partition("=")[2] for a in extra if a.startswith("steps=")), None)
    for env in chosen(options, "env", [*ENVS]):
        for recipe in chosen(options, "recipe", ROWS):
            steps = int(given or ENVS[env])
            python = options["sb3"] if recipe == SB3 else sys.executable
            try:
                pairs.append((env, recipe, steps, *prepare(env, recipe, steps, extra, python)))
            except ValueError as error:
                obstacles[str(error)].append(f"{env} {recipe}")
    for reason, names in obstacles.items():
        print(f"Left out {', '.join(names)}: {reason}")
    seeds = range(int(options["seeds"]))
    return [Run(env, recipe, seed, steps, *rest) for seed in seeds for env, recipe, steps, *rest in pairs]


def execute(run: Run, options: dict[str, str]) -> dict:
    """One run in a process of its own; what it has finished or can continue is not repeated."""
    if run.recipe != SB3:
        return launch.make(run.name, [*run.overrides, f"device={options['device']}"], run.seed)
    out = launch.RUNS / run.name / f"seed{run.seed}"
    if not (out / "result.json").is_file():
        arguments = [f"env={IDS[run.env]}", f"steps={run.steps}", f"seed={run.seed}", f"out={out}"]
        launch.call(run.key, [options["sb3"], str(Path(sb3.__file__)), *arguments])
    return json.loads((out / "result.json").read_text())


def show() -> int:
    """README's table and the picture, from the file alone; names the rows whose settings are not those of conf/ now."""
    data = results.read(JSON)
    for env, steps in ENVS.items():
        for recipe in ROWS:
            kept = {v["settings"] for k, v in data["runs"].items() if k.startswith(f"{env}/{recipe}/")}
            if kept and kept != {fingerprint(recipe, overrides_of(env, recipe, steps), env, steps)}:
                print(f"{env}, {recipe}: conf/ has changed since these runs; the next `classic` makes them anew.")
    table = results.table(data, IDS, ROWS)
    print(table)
    if not data["runs"]:
        return 1
    problem = results.write_readme(README, table)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"Table in {README}, picture in {results.draw(data, IDS, ROWS, JSON.with_suffix('.png'))}")
    return 0


def main(arguments: list[str]) -> int:
    """The command; the exit code is 1 where a run failed and 2 where the arguments cannot be read."""
    if arguments == ["show"]:
        return show()
    if any("=" not in a for a in arguments):
        print(USAGE, file=sys.stderr)
        return 2
    known = ("env", "recipe", "seeds", "jobs", "device", "sb3")
    options = {"seeds": "10", "jobs": str(os.cpu_count() or 1), "device": "cpu", "sb3": sys.executable}
    options |= {k: v for k, _, v in (a.partition("=") for a in arguments) if k in known}
    extra = [a for a in arguments if a.partition("=")[0] not in known]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a run: there are many
    path = launch.RUNS / "classic.json" if extra else JSON
    runs = plan(options, extra)
    have = results.read(path)["runs"]
    todo = [r for r in runs if have.get(r.key, {}).get("settings") != r.settings]
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them in {path} already, {options['jobs']} at once")
    failed = pool.work(
        todo,
        lambda run: execute(run, options),
        lambda run, result: results.land(path, run.key, run.settings, result, int(options["jobs"])),
        int(options["jobs"]),
        len(runs) - len(todo),
    )
    print(results.table(results.read(path), IDS, ROWS))
    if failed:
        print(f"{failed} of {len(runs)} runs failed; the same command tries them again.", file=sys.stderr)
    return int(failed > 0)
