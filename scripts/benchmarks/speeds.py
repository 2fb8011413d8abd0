"""What `scripts/bench` measures in its own process: the stages of training, an update by engine, prioritised replay."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from benchmarks import floors
from benchmarks.report import Report, number, spread
from benchmarks.settings import CLEANRL, overrides

from dqn.config import build
from dqn.device import choose_device
from dqn.errors import UsageError
from dqn.execution.engines import Compiled, CUDAGraph, Eager
from dqn.execution.inductor.compiled import compiler_missing
from dqn.ops.schedules import Constant
from dqn.replay.prioritized import Prioritized
from dqn.replay.ring import Ring
from dqn.types import Rows, Spec

ENGINES = {"eager": Eager, "compile": Compiled, "cudagraph": CUDAGraph}


def composed(extra: list[str]) -> list[str]:
    """The overrides of a run: CleanRL's settings below what is given; an algorithm that is named brings its own."""
    given = {argument.partition("=")[0]: argument for argument in extra}
    of = CLEANRL
    house = overrides(of["start"], of["start"] + of["warm"] + of["steps"])
    if "algorithm" in given:
        house = [o for o in house if o.startswith(("env=", "steps=", "tracking."))]
    return [*({override.partition("=")[0]: override for override in house} | given).values()]


def engines_for(device: torch.device, asked: str = "") -> list[str]:
    """The engines to compare on a device: eager, and those that are asked for, or all. Errors: UsageError."""
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in ENGINES:
            raise UsageError(f"engines={asked}: {name} is not an engine, choose from {', '.join(ENGINES)}.")
    obstacles = {
        "compile": compiler_missing() if device.type == "cpu" else "",
        "cudagraph": "" if device.type == "cuda" else f"it needs a GPU, not {device}",
    }
    for name in names:
        if obstacles.get(name):
            raise UsageError(f"engines={asked}: {name} cannot be used here, {obstacles[name]}.")
    return [n for n in ENGINES if n == "eager" or (n in names if names else not obstacles[n])]


def stages(options: dict[str, Any], extra: list[str]) -> Report:
    """The time of training by stage, after its start."""
    overrides = composed(extra)
    with tempfile.TemporaryDirectory() as directory:
        started = perf_counter()
        run = floors.wire(overrides, Path(directory))
        steps, begin = run.trainer.times.steps, run.trainer.times.learning_starts + CLEANRL["warm"]
        if steps <= begin:
            raise UsageError(f"steps={steps} leaves nothing to time after the first {begin}: raise steps.")
        floors.advance(run, begin)
        start = perf_counter() - started
        window = floors.advance(run, steps)
        run.close()
    split = {name: seconds for name, seconds in window.stages.items() if seconds}
    split["the rest"] = window.seconds - sum(split.values())
    rows = [
        ["sample + update" if name == "update" else name, number(seconds), f"{100 * seconds / window.seconds:.1f} %",
         number(1e6 * seconds / window.env_steps), number(1e6 * seconds / window.updates) if window.updates else "–"]
        for name, seconds in {**split, "all": window.seconds}.items()
    ]  # fmt: skip
    notes = [
        f"{window.env_steps / window.seconds:,.0f} env_steps/s, {window.updates / window.seconds:,.0f} updates/s: "
        f"{window.env_steps:,} env_steps and {window.updates:,} updates in {window.seconds:.2f} s, "
        f"{run.trainer.engine.why}, {run.device}. Before them {start:.1f} s of wiring, filling and first updates. "
        "Checkpoints do not count."
    ]
    if run.device.type != "cpu":
        notes.append("The device works on while the host does: a stage that waits for it also pays for those before.")
    return Report(
        ["stage", "s", "share", "µs an env_step", "µs an update"], rows, notes,
        {name: [1e6 * seconds / window.env_steps] for name, seconds in split.items()}, "µs an env_step",
        more={"overrides": overrides, "seconds": split, "all": window.seconds, "env_steps": window.env_steps,
              "updates": window.updates, "start_s": start, "engine": run.trainer.engine.why},
    )  # fmt: skip


def engines(options: dict[str, Any], extra: list[str]) -> Report:
    """An update under each engine in turn, and the time that its arithmetic alone takes at large products' rate."""
    if any(argument.startswith("execution=") for argument in extra):
        raise UsageError("execution= cannot be given here: engines= chooses what is compared.")
    overrides, runs, first = composed(extra), {}, {}
    with tempfile.TemporaryDirectory() as directory:

        def wire(engine: str) -> build.Run:
            return floors.wire([*overrides, f"execution={engine}"], Path(directory) / engine)

        eager = wire("eager")
        for name in engines_for(eager.device, options["engines"]):
            runs[name] = eager if name == "eager" else wire(name)
            with floors.engine_holds(name):
                floors.fill(runs[name])
                first[name] = floors.first(runs[name].trainer.update, eager.device)
        gradient_steps = eager.trainer.learner.steps
        flop = floors.flops(eager.trainer.update) / gradient_steps
        programs = {
            name: floors.window(run.trainer.update, options["calls"], eager.device, gradient_steps)
            for name, run in runs.items()
        }
        programs["floor"] = lambda _: 1e6 * flop / floors.rate(eager.device)
        windows = floors.alternate(programs, options["windows"])
        for run in runs.values():
            run.close()
    floor, launch, threads = windows.pop("floor"), 1e6 * floors.launch(eager.device), torch.get_num_threads()
    notes = [
        f"The floor: {flop / 1e9:.4g} GFLOP of matrix products and convolutions, forward and backward, take "
        f"{number(median(floor))} µs at {1e-3 * flop / median(floor):,.0f} GFLOP/s, the median of large float32 "
        f"products in turn with the engines; {number(min(floor))} µs at the fastest "
        f"({eager.device}, {threads} thread{'s' * (threads > 1)})"
        + (f"; one launch of the smallest captured graph takes {number(launch)} µs." if launch else "."),
        _how(options, "updates"),
    ]
    more = {"overrides": overrides, "flop": flop, "floors": floor, "launch_us": launch, "first_s": first}
    return _compared(windows, first, notes, "µs an update", more, [max(each, launch) for each in floor])


def per(options: dict[str, Any], extra: list[str]) -> Report:
    """Prioritised replay alone: a draw with its weights, and the report of new errors."""
    device, _ = choose_device(options["device"])
    torch.set_num_threads(1)
    leaves, batch, programs, first = options["leaves"], options["batch"], {}, {}
    for name in engines_for(device, options["engines"]):
        engine = ENGINES[name](device, options["calls"])
        with floors.engine_holds(name):
            programs[name] = engine.capture(drawing(leaves, batch, device))
            first[name] = floors.first(programs[name], device)
    notes = [f"{leaves:,} transitions, {batch} drawn in a call, their weights, and their new priorities; {device}, one "
             "thread.", _how(options, "calls")]  # fmt: skip
    programs = {name: floors.window(step, options["calls"], device) for name, step in programs.items()}
    windows = floors.alternate(programs, options["windows"])
    return _compared(windows, first, notes, "µs a call", {"options": options, "first_s": first}, [])


def drawing(leaves: int, batch: int, device: torch.device) -> Callable[[], torch.Tensor]:
    """One draw and report from a memory of `leaves` transitions that is full, with priorities of all sizes."""
    no, generator = np.zeros((leaves, 1), bool), torch.Generator(device).manual_seed(0)
    ring = Ring(Spec((1,), np.dtype(np.float32), 2), leaves, 1, device=device)
    obs, reward = np.zeros((leaves + 1, 1, 1), np.float32), np.zeros((leaves, 1), np.float32)
    ring.extend(Rows(obs, no.astype(np.int64), reward, no, no, no))
    sampler = Prioritized(batch, 0.6, Constant(0.4))  # conf/config.yaml
    sampler.attach(ring)
    sampler.ready(ring)
    every = torch.arange(leaves, device=device)
    errors = torch.randn(1, leaves, generator=generator, device=device)
    sampler.report(every, torch.zeros_like(every), errors, torch.ones_like(errors, dtype=torch.bool))
    fresh = torch.randn(1, batch, generator=generator, device=device)
    valid = torch.ones_like(fresh, dtype=torch.bool)

    def step() -> torch.Tensor:
        slot, env, weight = sampler.sample(ring, generator)
        sampler.report(slot, env, fresh, valid)
        return weight

    return step


def _how(options: dict[str, Any], what: str) -> str:
    return (
        f"Median of {options['windows']} windows of {options['calls']} {what}, the engines in turn; first: the first "
        f"{floors.FIRST}, which compile or capture what there is to."
    )


def _compared(
    windows: dict[str, list[float]], first: dict[str, float], notes: list[str], unit: str, more: dict[str, Any],
    at_rate: list[float],
) -> Report:  # fmt: skip
    """Engines beside each other, against eager and against the floor where there is one."""
    rows, eager, floor = [], median(windows["eager"]), median(at_rate) if at_rate else None
    for name, values in windows.items():
        times = [f"{eager / median(values):.2f}", *([f"{median(values) / floor:.1f}"] if floor else [])]
        rows.append([name, *spread(values), number(1e6 / median(values)), *times, f"{first[name]:.1f}"])
    head = ["engine", unit, "from, to", "a second", "eager / it", *(["it / floor"] if floor else []), "first, s"]
    if floor:
        rows.append(["floor", *spread(at_rate), number(1e6 / floor), f"{eager / floor:.2f}", "1", ""])
    return Report(head, rows, notes, windows, unit, floor, more)
