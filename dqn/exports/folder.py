"""An agent as a folder that other programs run, with the proof that its files say what the network says."""

import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from dqn import __version__
from dqn.config.cli import say
from dqn.config.summary import identity
from dqn.device import same_process
from dqn.envs.interface import Interface
from dqn.envs.last_step import LastStep
from dqn.envs.passed import FROM_PYTHON
from dqn.errors import RunError, UsageError
from dqn.exports.onnx_files import Session, library, quantize, write
from dqn.exports.policy import CORE_STATE, Policy
from dqn.types import ILLEGAL

OBSERVATIONS, ENVIRONMENTS = 1000, 8  # how many are compared, and how many environments show them side by side
RANDOM = 0.1  # of the actions on the way to them are drawn at random: states that the policy alone would never see
ONNX, PROGRAM, ABOUT, ACT = "policy.onnx", "policy.pt2", "export.json", "act.py"
STANDALONE = Path(__file__).with_name("act.py")  # what becomes act.py
Outputs = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass
class Seen:
    """What environments showed, tick by tick, what the network said of it, and the arguments of the policy."""

    begins: list[np.ndarray]  # [E] bool: an episode begins with what is shown
    q: list[np.ndarray]  # [E, A]
    arguments: list[list[np.ndarray]]


def export(
    agent: Any, folder: Path, tolerance: float, int8: bool, drop: float, episodes: int, teacher: Any = None
) -> dict[str, Any]:
    """Write `agent`, whose network lies on the CPU, into `folder`, print what was measured, and return it: export.json.

    Errors: UsageError where a library is missing; RunError where a file differs from the network by more than
    `tolerance` of the largest |Q| (at least 1), or where int8 loses more than the share `drop` of the return. With a
    `teacher`, the agent that this one was distilled from, the two are compared.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library(name)
    folder.mkdir(parents=True, exist_ok=True)
    policy = Policy(agent.network, agent.spec, agent.interface)
    with same_process(), torch.no_grad():
        torch.set_num_threads(agent.cfg.execution.threads)
        write(policy, folder / ONNX, folder / PROGRAM)
        seen = observed(agent, policy)
        session, program = Session(folder / ONNX, policy), torch.export.load(folder / PROGRAM).module()
        about = description(agent, policy)
        about["parity"] = {
            ONNX: parity(policy, seen, session.run),
            PROGRAM: parity(policy, seen, lambda given: [x.numpy() for x in program(*map(torch.from_numpy, given))]),
        }
        if about["env"] is not None:
            _write_player(about["env"], folder)
        _write_about(folder, about)
        _check_parity(about["parity"], tolerance)
        if int8:
            about["int8"] = quantized(agent, policy, folder, seen, drop, episodes)
        if teacher is not None:
            about["distilled"] = distilled(agent, session, teacher, seen, episodes)
        _write_about(folder, about)
    if int8 and not any(one["kept"] for name, one in about["int8"].items() if name != "float32"):
        raise RunError(f"int8 loses more than {drop:.0%} of the return (drop={drop:g}): its files were not kept.")
    return about


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps(about, indent=1))


def _write_player(env: dict[str, Any], folder: Path) -> None:
    """act.py, and beside it the wrapper that is this package's own, so that neither needs the package."""
    shutil.copy(STANDALONE, folder / ACT)
    for one in env["wrappers"]:
        if one["name"] == LastStep.__name__ and one["module"].startswith("dqn."):
            one["module"] = "last_step"
            shutil.copy(str(inspect.getsourcefile(LastStep)), folder / "last_step.py")


def _check_parity(found: dict[str, dict[str, Any]], tolerance: float) -> None:
    for name, one in found.items():
        say(
            f"{name:<12}{one['observations']:,} observations: max |ΔQ| {one['max_difference']:.1e} "
            f"({one['relative_difference']:.1e} of the largest |Q|), equal actions {one['equal_actions']:.2%}"
        )
    for name, one in found.items():
        if not one["relative_difference"] <= tolerance:
            raise RunError(
                f"{name} differs from the network by {one['relative_difference']:.1e} of the largest |Q|, more than "
                f"tolerance={tolerance:g}: do not use it, or allow more."
            )


def observed(agent: Any, policy: Policy) -> Seen:
    """What the run's own environments show the agent, or samples of the space where their package is missing."""
    seen, state = Seen([], [], []), policy.network.initial(0)
    for obs, begins in _shown(agent):
        if not seen.q:
            state = policy.network.initial(len(obs))
        state = state * torch.from_numpy(~begins).unsqueeze(-1)
        seen.begins.append(begins)
        seen.arguments.append(policy.arguments(obs, state))
        values, state = policy.network.step(torch.from_numpy(obs), state)
        seen.q.append(values.q.numpy())
    return seen


def _shown(agent: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Observations as the network reads them [E, ...], and where an episode begins with them [E]."""
    evaluator = agent.evaluator()
    try:
        envs = evaluator.environments(ENVIRONMENTS)
        actor = evaluator.actor(envs.num_envs, RANDOM)
        obs, begins = envs.reset(agent.cfg.seed), np.ones(envs.num_envs, bool)
        for _ in range(ceil(OBSERVATIONS / envs.num_envs)):
            yield np.array(obs), begins
            step = envs.step(actor.act(obs, 0))
            obs, begins = step.obs, step.begins
            actor.forget(begins)
    except UsageError as error:
        if agent.interface is None:
            raise
        say(f"Compared by samples of the observation space, as no environment can be made: {error}")
        yield from _sampled(agent.interface)
    finally:
        evaluator.close()


def _sampled(interface: Interface) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    space, generator = interface.observation_space, np.random.default_rng(0)
    space.seed(0)
    for tick in range(ceil(OBSERVATIONS / ENVIRONMENTS)):
        mask = None
        if interface.masked:
            mask = generator.random((ENVIRONMENTS, interface.spec.num_actions)) < 0.5
            mask[~mask.any(1)] = True
        obs = _stacked([space.sample() for _ in range(ENVIRONMENTS)])
        yield interface.observations.read(obs, mask), np.full(ENVIRONMENTS, tick == 0)


def _stacked(rows: list[Any]) -> Any:
    return {k: _stacked([row[k] for row in rows]) for k in rows[0]} if isinstance(rows[0], dict) else np.stack(rows)


def parity(policy: Policy, seen: Seen, outputs: Outputs) -> dict[str, Any]:
    """How far a file's q is from the network's, over legal actions, and how often both choose the same action. A
    recurrent file remembers by itself."""
    largest, difference, equal = 1.0, 0.0, []
    state = policy.network.initial(len(seen.begins[0])).numpy()
    for begins, q, arguments in zip(seen.begins, seen.q, seen.arguments, strict=True):
        state = state * ~begins[:, None]
        _, found, *after = outputs([*arguments[:-1], state] if policy.state_size else arguments)
        state, legal = after[0] if after else state, q > ILLEGAL
        largest = max(largest, float(np.abs(q[legal]).max()))
        difference = max(difference, float(np.abs(q - found)[legal].max()))
        equal.append(q.argmax(-1) == found.argmax(-1))
    return {
        "observations": sum(map(len, equal)),
        "max_difference": difference,
        "relative_difference": difference / largest,
        "equal_actions": float(np.concatenate(equal).mean()),
    }


def description(agent: Any, policy: Policy) -> dict[str, Any]:
    """What the files take and give, of which run they are, and how its environments are made (None where a script
    without this package cannot make them)."""
    interface, shapes = agent.interface, policy.actions
    spaces = None if interface is None else (interface.observation_space, interface.action_space)
    return {
        "dqn": __version__,
        "run": {
            **identity(agent.cfg, "tensor world" if interface is None else interface.id, agent.network.torso),
            "env_steps": agent.counters["env_steps"],
            "parameter_hash": agent.parameters_hash,
            "parameters": sum(p.numel() for p in policy.network.parameters()),
        },
        "spaces": spaces and dict(zip(("observation", "action"), map(str, spaces), strict=True)),
        "inputs": [one.plain() for one in policy.inputs],
        "state": {CORE_STATE: policy.state_size} if policy.state_size else {},
        "outputs": [
            {
                "name": "action",
                "shape": [] if shapes is None else [*shapes.shape[1:]],
                "dtype": str(policy.action_dtype),
            },
            {"name": "q", "shape": [agent.spec.num_actions], "dtype": "float32", "illegal": ILLEGAL},
        ],
        "actions": None if shapes is None else shapes.tolist(),  # by the column of q; None: the column is the action
        "sees": "what dqn.load(run).act takes, with an axis for the batch in front: observations as the wrappers of "
        "the run show them, stacks of frames whole, bytes and real numbers as they are",
        "env": None if interface is None else environment(agent.cfg.env),
    }


def environment(env: Any) -> dict[str, Any] | None:
    """What Gymnasium's make_vec needs to make the environments of a run; None where it cannot."""
    if ":" in env.id or env.id.startswith(FROM_PYTHON):
        return None
    options: Any = OmegaConf.to_container(OmegaConf.create(env.kwargs or {}), resolve=True)
    own = env.vectorization == "vector_entry_point"
    options["vectorization_mode"] = "vector_entry_point" if own else "sync"
    if env.max_episode_steps is not None:
        options["max_episode_steps"] = env.max_episode_steps
    wrappers = []
    for node in (env.get("wrappers") or {}).values():
        if node is not None:
            arguments: Any = OmegaConf.to_container(node, resolve=True)
            module, _, name = arguments.pop("_target_").rpartition(".")
            wrappers.append({"module": module, "name": name, "arguments": arguments})
    return {"id": env.id, "imports": [*env.imports], "options": options, "wrappers": wrappers}


def quantized(
    agent: Any, policy: Policy, folder: Path, seen: Seen, drop: float, episodes: int
) -> dict[str, dict[str, Any]]:
    """int8 files beside policy.onnx: each with its size, latency, agreement and return. One that loses more than the
    share `drop` of the return is deleted."""
    files = {name: folder / f"policy.{name}.onnx" for name in ("int8-dynamic", "int8-static")}
    for name, path in files.items():
        quantize(name.removeprefix("int8-"), folder / ONNX, path, policy, seen.arguments)
    say(HEAD.format("", episodes))
    found = {}
    for name, path in {"float32": folder / ONNX, **files}.items():
        session = Session(path, policy)
        one = found[name] = measured(agent, session, episodes)
        one["equal_actions"] = parity(policy, seen, session.run)["equal_actions"]
        base = found["float32"]["return"]
        one["kept"] = one["return"] >= base - drop * abs(base)
        say(_line(name, one) + ("" if one["kept"] else f"  refused: it loses more than {drop:.0%}"))
        if not one["kept"]:
            path.unlink()
    return found


def distilled(agent: Any, session: Session, teacher: Any, seen: Seen, episodes: int) -> dict[str, dict[str, Any]]:
    """The agent beside the teacher that it was distilled from: parameters, size, latency, agreement and return."""
    found = {}
    with TemporaryDirectory() as folder:
        theirs = Policy(teacher.network, teacher.spec, teacher.interface)
        write(theirs, Path(folder) / ONNX)
        other = Session(Path(folder) / ONNX, theirs)
        say(HEAD.format("", episodes))
        for name, whose, one in (("teacher", teacher, other), ("student", agent, session)):
            found[name] = measured(whose, one, episodes)
            found[name]["equal_actions"] = 1.0 if one is other else _agreement(session, other, seen)
            say(_line(name, found[name]))
    return found


def _agreement(student: Session, teacher: Session, seen: Seen) -> float:
    """How often two policies choose the same action; a teacher remembers nothing."""
    shown = len(student.policy.inputs)
    pairs = [(student.run(given)[0], teacher.run(given[:shown])[0]) for given in seen.arguments]
    return float(np.mean([(a.reshape(len(a), -1) == b.reshape(len(b), -1)).all(-1) for a, b in pairs]))


HEAD = "{:<14}parameters       KiB    µs (1)   µs (32)  equal actions  return over {}"


def _line(name: str, one: dict[str, Any]) -> str:
    numbers = f"{one['bytes'] / 1024:>10.1f}{one['us_1']:>10.0f}{one['us_32']:>10.0f}{one['equal_actions']:>15.2%}"
    return f"{name:<14}{one['parameters']:>10,}{numbers}  {one['return']:.1f} ± {one['std']:.1f}"


def measured(agent: Any, session: Session, episodes: int) -> dict[str, Any]:
    """An ONNX file's size, the microseconds of a call with 1 and with 32 observations, and its return in whole
    episodes, played as an evaluation of the agent is."""
    evaluator = agent.evaluator(session)
    try:
        result = evaluator(episodes, longest=agent.counters["longest"])
    finally:
        evaluator.close()
    return {
        "parameters": sum(p.numel() for p in session.policy.network.parameters()),
        "bytes": session.path.stat().st_size,
        "us_1": _latency(session, 1),
        "us_32": _latency(session, 32),
        "return": result["mean"],
        "std": result["std"],
        "returns": result["returns"],
    }


def _latency(session: Session, batch: int, blocks: int = 5, calls: int = 100) -> float:
    """Microseconds of a call in one thread: the median of a block of calls, of the block that was disturbed least."""
    given, medians = [x.numpy() for x in session.policy.example(batch)], []
    for _ in range(blocks):
        times = []
        for _ in range(calls):
            began = perf_counter()
            session.run(given)
            times.append(perf_counter() - began)
        medians.append(float(np.median(times)))
    return 1e6 * min(medians)
