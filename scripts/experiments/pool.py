"""Runs at once, in order, each handed on as it ends, with an estimate of the rest."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from time import perf_counter
from typing import Any

from experiments import launch


def clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 6000 else f"{seconds / 60:.1f} min"


def left(todo: Iterable[Any], seen: dict[Any, list[float]], steps: int, jobs: int) -> float:
    """Seconds that runs should take: as their pair did in this sitting, else as many a step as all runs so far."""
    pace = sum(map(sum, seen.values())) / steps
    guesses = [sum(seen[r.pair]) / len(seen[r.pair]) if r.pair in seen else pace * r.steps for r in todo]
    return max(sum(guesses) / jobs, max(guesses, default=0.0))


def work(todo: list[Any], execute: Callable, land: Callable, jobs: int, done: int = 0) -> int:
    """`land(run, execute(run))` for every run, `jobs` at once; how many failed. `done` were made before.

    Ctrl-C and SIGTERM end the program; what has landed stays.
    """
    start, steps, failed, total = perf_counter(), 0, 0, done + len(todo)
    seen, waiting = defaultdict(list), list(todo)

    def timed(run: Any) -> tuple[dict, float]:
        begun = perf_counter()
        return execute(run), perf_counter() - begun

    pool = ThreadPoolExecutor(jobs)
    futures = {pool.submit(timed, run): run for run in todo}
    try:
        for future in as_completed(futures):
            run = futures[future]
            waiting.remove(run)
            try:
                result, wall = future.result()
            except launch.Failed as error:
                failed += 1
                print(error, flush=True)
                continue
            land(run, result)
            done, steps = done + 1, steps + run.steps
            seen[run.pair].append(max(wall, result["seconds"]))  # wall is nothing where only the result was read
            print(
                f"[{done}/{total}] {run}: {result['evaluation']['mean']:.1f} in {result['seconds']:.0f} s; "
                f"{clock(perf_counter() - start)} gone, about {clock(left(waiting, seen, steps, jobs))} to go",
                flush=True,
            )
    except KeyboardInterrupt:
        print(f"Stopped after {done} of {total} runs; the same command goes on.", flush=True)
        sys.exit(130)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed
