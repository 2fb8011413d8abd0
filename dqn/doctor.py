"""Look at a machine or an environment before training: python -m dqn.doctor [env=gym env.id=…]"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from dqn import __version__
from dqn.config.cli import CONF, explain, say, verb, whole
from dqn.errors import RunError, UsageError
from dqn.resources import cores, free_memory

USAGE = """\
usage: python -m dqn.doctor [env=CHOICE] [option=value …] [limit=60]

Without options it looks at the machine. With those of python -m dqn.train it also looks at the environment: what it
shows, whether it keeps Gymnasium's contract, repeats under a seed and ends, and what would be trained in it. The exit
code is 1 where something is wrong. An environment that does not answer is given up after limit=60 seconds."""
MARKS = {"fine": "  ok  ", "note": " note ", "wrong": "WRONG "}
EXTRAS = {
    "atari": "ale_py", "export": "onnxruntime", "lm": "transformers", "offline": "minari", "plot": "matplotlib",
    "sweep": "hydra_plugins.hydra_joblib_launcher", "tune": "optuna", "video": "imageio",
}  # fmt: skip
TICKS, ENVIRONMENTS = 500, 2  # that are played at random, side by side
LARGE_REWARD, FEW_STEPS = 100.0, 200.0  # of one step; a second
CHILD = "--look"


@dataclass(frozen=True)
class Finding:
    """Something that was looked at: how it is (`fine`, `note` or `wrong`), what it is, and what to do about it."""

    how: str
    what: str
    advice: str = ""

    def line(self) -> str:
        return f"{MARKS[self.how]} {self.what}{': ' + self.advice if self.advice else ''}"


def machine() -> Iterator[Finding]:
    """What a run would find here."""
    import gymnasium
    import torch

    from dqn.device import choose_device
    from dqn.execution.inductor.compiled import compiler_missing

    versions = f"torch {torch.__version__}, gymnasium {gymnasium.__version__}"
    yield Finding("fine", f"dqn {__version__}, Python {platform.python_version()}, {versions}, {platform.platform()}")
    device, why = choose_device("auto")
    product = torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)
    ran = bool((product == 64).all())
    said = f"device {device} ({why}); a matrix product there is {'right' if ran else 'WRONG'}"
    yield Finding("fine" if ran else "wrong", said, "" if ran else "use device=cpu, and have the device looked at")
    if device.type == "cuda":
        yield Finding("fine", f"{torch.cuda.get_device_name(device)}: execution=auto captures updates as a CUDA graph")
    elif missing := compiler_missing():
        yield Finding("note", f"updates run eagerly, as there is {missing}", "install g++, and long runs are compiled")
    else:
        yield Finding("fine", "execution=auto measures the first updates and compiles where that saves time")
    memory = free_memory() / 2**30
    yield Finding("fine" if memory > 1 else "note", f"{memory:.1f} GiB of memory are free, a container's limit counted",
                  "" if memory > 1 else "make replay.capacity smaller, or set replay.device=memmap")  # fmt: skip
    yield from _shared_memory()
    yield Finding("fine", f"{cores()} cores, of which a run uses execution.threads=1 unless told")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("fine" if free > 1 else "note", f"{free:.1f} GiB of disk are free in {Path.cwd()}",
                  "" if free > 1 else "choose another place with run.dir=PATH")  # fmt: skip
    there = {extra: _there(module) for extra, module in EXTRAS.items()}
    missing = [extra for extra, yes in there.items() if not yes]
    if missing:
        yield Finding("note", f"extras that are not installed: {', '.join(missing)}",
                      f"pip install 'dqn-family[{','.join(missing)}]' where you need them")  # fmt: skip


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a package around it is missing
        return False


def _shared_memory() -> Iterator[Finding]:
    place = Path("/dev/shm")
    if place.is_dir():
        free = shutil.disk_usage(place).free / 2**20
        few = free < 32  # what actions and weights of the process that acts need, many times over
        yield Finding("note" if few else "fine", f"{free:,.0f} MiB of shared memory are free",
                      "give a container more with --shm-size=256m" if few else "")  # fmt: skip


def environment(arguments: Sequence[str], limit: int) -> list[Finding]:
    """What another process finds in the environment: whatever that does, this one goes on."""
    with tempfile.TemporaryDirectory(prefix="dqn-doctor-") as place:
        table = Path(place) / "findings.jsonl"
        command = [sys.executable, "-m", "dqn.doctor", CHILD, str(table), *arguments]
        path = os.pathsep.join([str(CONF.parent if CONF.name == "conf" else CONF), *filter(None, sys.path)])
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
            found = _read(table)
            if done.returncode == 0 and found and found[-1].what == "end":
                return found[:-1]
            ending = f"ended the process that played in it (exit code {done.returncode})"
        except subprocess.TimeoutExpired:
            found, ending = _read(table), f"did not answer within {limit} seconds"
        advice = "a constructor, a reset or a step ends or never comes back; try it in a loop of your own"
        return [*found, Finding("wrong", f"the environment {ending}", advice)]


def _read(table: Path) -> list[Finding]:
    lines = table.read_text().splitlines() if table.is_file() else []
    return [Finding(**json.loads(line)) for line in lines]


def look(table: Path, arguments: Sequence[str]) -> None:
    """In a process of its own: write what is found, a line each, as it is found."""
    with table.open("w") as file:

        def note(finding: Finding) -> None:
            file.write(json.dumps(asdict(finding)) + "\n")
            file.flush()

        try:
            for finding in examined(arguments):
                note(finding)
        except (UsageError, RunError) as error:
            note(Finding("wrong", str(error).rstrip(".")))
        except Exception as error:  # of the environment, or of Hydra
            note(Finding("wrong", f"{type(error).__name__}: {explain(error)}".rstrip(".")))
        note(Finding("fine", "end"))


def examined(arguments: Sequence[str]) -> Iterator[Finding]:
    """What is found in the environment of a command line. Errors: UsageError, RunError."""
    from dqn.api import composed
    from dqn.config import build, parts

    warnings.simplefilter("ignore")
    cfg, _ = composed("config", [*arguments])
    with tempfile.TemporaryDirectory(prefix="dqn-doctor-", ignore_cleanup_errors=True) as place:
        run = build.run(cfg, Path(place), progress=False)
        shown = {line.split()[0]: " ".join(line.split()) for line in run.summary.splitlines()[1:] if line.strip()}
        run.close()
    for name in ("env", "torso", "memory"):
        if name in shown:
            yield Finding("fine", shown[name])
    yield from (Finding("note", sentence.rstrip(".")) for sentence in run.warnings)
    yield from _contract(cfg)
    envs = parts.environments(cfg, num_envs=ENVIRONMENTS, **_here(cfg))
    twin = parts.environments(cfg, num_envs=ENVIRONMENTS, **_here(cfg))
    try:
        own = cfg.env.get("vectorization") == "vector_entry_point"  # a class whose limits are its own
        yield from Play(envs, twin, cfg.seed, own).findings()
    finally:
        envs.close()
        twin.close()


def _here(cfg: Any) -> dict[str, Any]:
    """Environments of Gymnasium play in this process."""
    return {"vectorization": "sync"} if cfg.env.get("vectorization") == "async" else {}


def _contract(cfg: Any) -> Iterator[Finding]:
    """What Gymnasium's own checker says of the environment, where it is a single one that a name leads to."""
    import gymnasium
    from gymnasium.utils.env_checker import check_env
    from omegaconf import OmegaConf

    if "id" not in cfg.env or cfg.env.get("vectorization") == "vector_entry_point":
        return
    for module in cfg.env.imports:
        importlib.import_module(module)
    kwargs: Any = OmegaConf.to_container(cfg.env.kwargs or OmegaConf.create({}), resolve=True)
    env = gymnasium.make(cfg.env.id, **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            yield Finding("wrong", f"Gymnasium's checker refuses it ({said})", "mend the environment")
        else:
            yield Finding("fine", "Gymnasium's checker finds its contract kept")
    said = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    for warning in dict.fromkeys(" ".join(re.sub(r"\x1b\[\d*m", "", one).split()) for one in said):
        if "infinity" not in warning:  # bounds of a Box that are left open are no fault
            yield Finding("note", warning.removeprefix("WARN: ")[:200].rstrip("."))
    env.close()


class Play:
    """Some ticks of random legal actions in environments, and the same in their twins."""

    def __init__(self, envs: Any, twin: Any, seed: int, own: bool):
        import numpy as np

        self.np, self.envs, self.twin, self.seed, self.own = np, envs, twin, seed, own
        self.rewards: list[Any] = []
        self.ends = {"terminated": 0, "truncated": 0}
        self.legal: list[float] = []
        self.differs_at: int | None = None
        self.lowest, self.highest, self.odd = float("inf"), float("-inf"), 0
        self.seconds, self.steps = 0.0, 0

    def findings(self) -> Iterator[Finding]:
        """Play, then say what was seen. Errors: RunError where an environment breaks its contract on the way."""
        self._play()
        yield from self._repeats()
        yield from self._lengths()
        yield from self._rewards()
        yield from self._observations()
        speed = self.steps / self.seconds if self.seconds else float("inf")
        slow = speed < FEW_STEPS
        advice = "play several at once: env.num_envs=8 env.vectorization=async" if slow else ""
        yield Finding("note" if slow else "fine", f"{speed:,.0f} steps a second in one process", advice)

    def _play(self) -> None:
        np = self.np
        generator = np.random.default_rng(self.seed)
        obs, other = self.envs.reset(self.seed), self.twin.reset(self.seed)
        self._see(0, obs, other)
        for tick in range(1, TICKS + 1):
            action = self._action(obs, generator)
            began = perf_counter()
            step = self.envs.step(action)
            self.seconds += perf_counter() - began
            self.steps += self.envs.num_envs
            same = self.twin.step(action)
            obs = step.obs
            self.rewards.append(step.reward.copy())
            for name in self.ends:
                self.ends[name] += int(getattr(step, name).sum())
            if self.differs_at is None and not np.array_equal(step.reward, same.reward):
                self.differs_at = tick
            self._see(tick, obs, same.obs)

    def _see(self, tick: int, obs: Any, other: Any) -> None:
        np = self.np
        if self.differs_at is None and not np.array_equal(obs, other):
            self.differs_at = tick
        if not self.envs.spec.parts and np.asarray(obs).dtype.kind == "f":
            self.lowest, self.highest = min(self.lowest, float(obs.min())), max(self.highest, float(obs.max()))

    def _action(self, obs: Any, generator: Any) -> Any:
        import torch

        from dqn.networks.records import split
        from dqn.types import MASK

        np, spec = self.np, self.envs.spec
        legal = np.ones((self.envs.num_envs, spec.num_actions), bool)
        if any(name == MASK for name, _ in spec.parts):
            legal = split(spec.parts, torch.from_numpy(np.asarray(obs)))[MASK].numpy()
            self.legal.append(float(legal.mean()))
        return np.array([generator.choice(np.flatnonzero(row)) if row.any() else 0 for row in legal])

    def _repeats(self) -> Iterator[Finding]:
        if self.differs_at is None:
            yield Finding("fine", f"two copies with one seed are the same for {TICKS} steps")
        else:
            yield Finding("wrong", f"two copies with one seed differ at step {self.differs_at}",
                          "draw from self.np_random after super().reset(seed=seed), or no run repeats")  # fmt: skip

    def _lengths(self) -> Iterator[Finding]:
        ended = sum(self.ends.values())
        said = f"{self.ends['terminated']} ends and {self.ends['truncated']} truncations in {self.steps:,} random steps"
        if ended or self.envs.limit is not None:
            limit = "no time limit" if self.envs.limit is None else f"a time limit of {self.envs.limit:,}"
            yield Finding("fine" if self.envs.limit is not None else "note", f"{limit}, {said}",
                          "" if self.envs.limit is not None else "env.max_episode_steps=N sets a limit")  # fmt: skip
        elif self.own:
            yield Finding("note", said, "if no episode ever ends, evaluations are cut at tracking.evaluate_cap")
        else:
            yield Finding(
                "wrong", f"no time limit, and {said}", "set env.max_episode_steps=N, or evaluations never end"
            )

    def _rewards(self) -> Iterator[Finding]:
        rewards = self.np.concatenate(self.rewards)
        share, most = float((rewards != 0).mean()), float(abs(rewards).max())
        said = f"rewards from {rewards.min():g} to {rewards.max():g}, not zero at {share:.0%} of the steps"
        if not share:
            yield Finding("note", said, "random play meets none: expect slow learning, or give rewards on the way")
        elif most > LARGE_REWARD:
            yield Finding(
                "note", said, "make them smaller: of the size of 1 a step, with a wrapper, or set reward_clip"
            )
        else:
            yield Finding("fine", said)

    def _observations(self) -> Iterator[Finding]:
        if isfinite(self.lowest):
            said = f"observations from {self.lowest:g} to {self.highest:g}"
            far = max(abs(self.lowest), abs(self.highest)) > 100
            yield Finding("note" if far else "fine", said, "set normalizer=running" if far else "")
        if self.legal:
            share = sum(self.legal) / len(self.legal)
            yield Finding("fine", f"masks of legal actions: {share:.0%} of the actions are legal")


def doctor(arguments: list[str]) -> None:
    """The verb."""
    if arguments[:1] == [CHILD]:
        look(Path(arguments[1]), arguments[2:])
        return
    limit = next((whole(1)("limit", a.partition("=")[2]) for a in arguments if a.startswith("limit=")), 60)
    given = [a for a in arguments if not a.startswith("limit=")]
    if wrong := [a for a in given if "=" not in a]:
        raise UsageError(f"{wrong[0]} is not an option; {USAGE.splitlines()[0]}.")
    found = [*machine()]
    for finding in found:
        say(finding.line())
    if given:
        say(f"\n{' '.join(given)}")
        about = environment(given, limit)
        for finding in about:
            say(finding.line())
        found += about
    bad = sum(finding.how == "wrong" for finding in found)
    say(f"\n{bad} wrong, {sum(finding.how == 'note' for finding in found)} notes")
    if bad:
        sys.exit(1)


def main() -> None:
    verb(doctor, USAGE)


if __name__ == "__main__":
    main()
