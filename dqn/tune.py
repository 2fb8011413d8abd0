"""Search for numbers and parts: python -m dqn.tune algorithm=dqn env=acrobot tune=learning tune.trials=30"""

import json
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeGuard

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dqn.config.cli import CONF, check_arguments, front_door, nearest, run_config, say, text, verb, whole
from dqn.config.resume import claimed
from dqn.errors import RunError, UsageError
from dqn.processes import end_with_parent

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

# PyTorch and Optuna take seconds to import. Nothing above does so: what is wrong with a command is said before.

USAGE = "usage: python -m dqn.tune [group=choice] [option=value] tune=SPACE [tune.trials=30] [tune.jobs=1] …"
HELP = f"""\
{USAGE}
Each trial is a run of python -m dqn.train with values from a space, which is a file of conf/tune or one of your own.

  tune=SPACE         {{spaces}}, or FILE.yaml, whose lines are option: {{{{low: 1.0e-5, high: 0.01, log: true}}}}
                     or option: [choice, choice]
  tune.trials=30     trials in all; a larger number beside the same tune.dir goes on
  tune.jobs=1        processes; more may be started by the same command, also later
  tune.pruner=median median, halving or none: trials that fall behind in their evaluations end early
  tune.seeds=5       seeds on which the best trial and the default are compared in the end; 0: none
  tune.dir=DIR       where all of it is kept; the default is runs/tune-SPACE-ALGORITHM-ENVIRONMENT

The same command after an interruption goes on where it stood."""
PRUNERS = ("median", "halving", "none")
FIXED = ("seed", "run.dir", "resume", "repeat", "trust", "experiment")  # what a trial cannot be searched over
FEW = 3  # seeds below which nothing is said of which is better; ours
STARTUP = 5  # trials before any is pruned; Optuna's own default


@dataclass(frozen=True)
class Search:
    """What is searched, where and how."""

    arguments: tuple[str, ...]  # of every run; the rest of the command line
    seed: int
    space: Mapping[str, Any]  # option → {low, high, log} or its choices
    name: str
    directory: Path
    trials: int
    jobs: int
    pruner: str
    seeds: int


def search_of(arguments: Sequence[str]) -> Search:
    """The search that a command line asks for. Errors: UsageError."""
    known: dict[str, Callable[[str, str], Any]] = {
        "tune": text, "tune.trials": whole(1), "tune.jobs": whole(1), "tune.pruner": text, "tune.seeds": whole(0),
        "tune.dir": text,
    }  # fmt: skip
    given: dict[str, Any] = {}
    rest, seed = [], 0
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if name == "tune" or name.startswith("tune."):
            if name not in known or not sign:
                raise UsageError(f"{name} is not an option{nearest(name, [*known])}; {USAGE}.")
            given[name] = known[name](name, value)
        elif argument.startswith("-"):
            raise UsageError(f"{argument} does not go with a search; {USAGE}.")
        elif name in ("run.dir", "resume", "repeat", "trust"):
            raise UsageError(f"{name}= does not go with a search: tune.dir=DIR names where its runs are kept.")
        elif name == "seed":
            seed = whole(0)(name, value)
        else:
            rest.append(argument)
    if not given.get("tune"):
        raise UsageError(f"No space was named: choose tune={' or tune='.join(_spaces())}, or a file; {USAGE}.")
    pruner = given.get("tune.pruner", "median")
    if pruner not in PRUNERS:
        raise UsageError(f"tune.pruner={pruner} is not known: choose one of {', '.join(PRUNERS)}.")
    words = {name.lstrip("+"): value for name, _, value in (argument.partition("=") for argument in rest)}
    name = Path(given["tune"]).stem
    world = words.get("env.id") or words.get("env", "cartpole")
    where = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{name}-{words.get('algorithm', 'dqn')}-{world}")
    space = read_space(given["tune"])
    check_space(space, rest)
    return Search(
        tuple(rest), seed, space, name, Path(given.get("tune.dir", f"runs/tune-{where}")),
        given.get("tune.trials", 30), given.get("tune.jobs", 1), pruner, given.get("tune.seeds", 5),
    )  # fmt: skip


def _spaces() -> list[str]:
    return sorted(path.stem for path in (CONF / "tune").glob("*.yaml"))


def read_space(name: str) -> dict[str, Any]:
    """A space by its name in conf/tune, or from a file. Errors: UsageError."""
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else CONF / "tune" / f"{name}.yaml"
    if not path.is_file() or (not own and name not in _spaces()):
        raise UsageError(
            f"tune={name} is not known{nearest(name, _spaces())}: choose one of {', '.join(_spaces())}, or a file."
        )
    try:
        space: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(space, dict) or not space:
        raise UsageError(f"{path} is empty: a space has a line for every option that is searched.")
    for option, values in space.items():
        if not (_is_range(values) or _is_choice(values)):
            raise UsageError(
                f"{path}: {option} must be {{low: …, high: …, log: true}} with low below high, or a list of choices."
            )
    return {str(option): values for option, values in space.items()}


def _is_range(values: Any) -> bool:
    if not isinstance(values, dict) or {*values} - {"low", "high", "log"}:
        return False
    low, high, log = values.get("low"), values.get("high"), values.get("log", False)
    return _is_number(low) and _is_number(high) and isinstance(log, bool) and low < high and not (log and low <= 0)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_choice(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and len({_text(value) for value in values}) == len(values)


def _text(value: Any) -> str:
    """A value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _first(values: Any) -> Any:
    return values["low"] if isinstance(values, dict) else values[0]


def check_space(space: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Refuse a space over what is no option, and one over what the command line sets. Errors: UsageError."""
    from hydra import compose, initialize_config_dir

    groups = {path.name for path in CONF.iterdir() if path.is_dir()} - {"tune"}
    given = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    for option, values in space.items():
        if option in given or option in FIXED:
            why = "given on the command line" if option in given else "the search's own"
            raise UsageError(f"{option} is {why} and cannot be searched: leave it out of one of them.")
        if option in groups:
            choices = values if isinstance(values, list) else []
            known = sorted(path.stem for path in (CONF / option).glob("*.yaml"))
            for choice in choices or [None]:
                if choice not in known:
                    raise UsageError(f"{option}={choice} is not known: choose among {', '.join(known)}.")
    # an option of a part that is itself searched is there in some trials alone, where the others count as failed
    plain = [o for o in space if o not in groups and o.partition(".")[0] not in space]
    words = [*arguments, *(f"{option}={_text(_first(space[option]))}" for option in plain)]
    check_arguments(words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", overrides=words)


def tune(arguments: list[str]) -> None:
    """Search, compare the best trial with the default on fresh seeds, and write what was found."""
    search = search_of(arguments)
    study = opened(search)
    say(
        f"{search.directory} has {_count(study)} of {search.trials} trials; searched are "
        f"{', '.join(search.space)}. Ctrl-C interrupts; the same command goes on."
    )
    _in_processes(search, run_trials)
    study = opened(search)
    if others := _running(study):
        numbers = ", ".join(str(trial.number + 1) for trial in others)
        say(f"Trials that still run in other processes: {numbers}. The last process ends the search.")
        return
    (search.directory / "locks" / "end").mkdir(exist_ok=True)
    with claimed(search.directory / "locks" / "end"):
        end(search, study)


def _count(study: "Study") -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _running(study: "Study") -> list["FrozenTrial"]:
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]


def opened(search: Search) -> "Study":
    """The study in the search's directory, which is made where there is none. Errors: UsageError."""
    try:
        import optuna
        from sqlalchemy.engine import URL
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise UsageError("A search needs Optuna: pip install 'dqn-family[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    (search.directory / "locks").mkdir(parents=True, exist_ok=True)
    path = search.directory / "study.db"
    url = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    pruner = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        "halving": optuna.pruners.SuccessiveHalvingPruner(),
        "none": optuna.pruners.NopPruner(),
    }[search.pruner]
    asked = json.dumps([sorted(search.arguments), search.seed, search.space], sort_keys=True)
    try:
        with _alone(search):
            storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
            study = optuna.create_study(
                storage=storage, study_name="dqn", direction="maximize", load_if_exists=True, pruner=pruner
            )
            before = study.user_attrs.get("asked")
            if before is None:
                study.set_user_attr("asked", asked)
    except (SQLAlchemyError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise UsageError(f"{path} is damaged or no study of this program: choose another tune.dir.") from error
    if before not in (None, asked):
        raise UsageError(f"{search.directory} holds a search with other options or seed: choose another tune.dir.")
    return study


@contextmanager
def _alone(search: Search) -> Iterator[None]:
    """What only one process may do at a time: wait for the others, then do it."""
    place = search.directory / "locks" / "study"
    place.mkdir(exist_ok=True)
    while True:
        lock = claimed(place)
        try:
            lock.__enter__()
        except UsageError:
            time.sleep(0.02)
            continue
        break
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _in_processes(search: Search, job: Callable[..., None]) -> None:
    """`job(search, worker)` in this process, or in as many as were asked for. Errors: RunError where one has died."""
    if search.jobs == 1:
        job(search, 0)
        return
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(job, search, number)) for number in range(search.jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:  # each worker has heard it too, and ends with a checkpoint
        for worker in workers:
            worker.join()
        raise
    died = [worker.exitcode for worker in workers if worker.exitcode]
    if died:
        raise RunError(f"{len(died)} of {search.jobs} processes died (exit code {died[0]}): the same command goes on.")


def _worker(job: Callable[..., None], search: Search, number: int) -> None:
    end_with_parent()
    front_door(lambda: job(search, number))


def run_trials(search: Search, worker: int = 0) -> None:
    """Take trials, left or new, until there are none."""
    study = opened(search)
    while (taken := take(search, study)) is not None:
        trial, lock = taken
        try:
            run_trial(search, study, trial)
        finally:
            lock.__exit__(None, None, None)


def take(search: Search, study: "Study") -> tuple["Trial", Any] | None:
    """The next trial, and the lock that says that a process has it: one whose process is gone, or a new one.

    A new trial's sampler is seeded by the search's seed and the trial's number, so that a search which was interrupted
    draws what it would have drawn.
    """
    import optuna
    from numpy.random import SeedSequence

    with _alone(search):
        for left in _running(study):
            place = search.directory / "locks" / str(left.number)
            place.mkdir(exist_ok=True)
            lock = claimed(place)
            try:
                lock.__enter__()
            except UsageError:
                continue  # another process has it
            trial = optuna.trial.Trial(study, left._trial_id)
            drawn(search, trial)
            return trial, lock
        number = len(study.get_trials(deepcopy=False))
        if number >= search.trials:
            return None
        seed = int(SeedSequence([search.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        place = search.directory / "locks" / str(number)
        place.mkdir(exist_ok=True)
        lock = claimed(place)
        lock.__enter__()
        trial = study.ask()
        drawn(search, trial)
        return trial, lock


def drawn(search: Search, trial: "Trial") -> dict[str, Any]:
    """The trial's values by option; what has been drawn before stays."""
    values: dict[str, Any] = {}
    for option, among in search.space.items():
        if isinstance(among, list):
            label = trial.suggest_categorical(option, [_text(value) for value in among])
            values[option] = next(value for value in among if _text(value) == label)
        elif isinstance(among["low"], int) and isinstance(among["high"], int):
            values[option] = trial.suggest_int(option, among["low"], among["high"], log=among.get("log", False))
        else:
            values[option] = trial.suggest_float(option, among["low"], among["high"], log=among.get("log", False))
    return values


def run_trial(search: Search, study: "Study", trial: "Trial") -> None:
    """One trial as a run: it ends with its return, pruned, or failed with a sentence."""
    import optuna

    values = drawn(search, trial)
    states = optuna.trial.TrialState
    place = search.directory / "trials" / str(trial.number + 1)

    def judge(trainer: Any, numbers: dict[str, Any]) -> None:
        value = numbers.get("evaluation/return")
        if value is None or not numbers["env_steps"] or numbers["env_steps"] >= trainer.times.steps:
            return
        trial.report(float(value), numbers["env_steps"])
        if trial.should_prune():
            raise optuna.TrialPruned(f"pruned at {numbers['env_steps']:,} steps with {value:.2f}")

    try:
        value = run(place, search.arguments, values, search.seed, [judge])
        if not isfinite(value):
            raise RunError("no episode has ended: the run has no return.")
        study.tell(trial, value)
        said = f"return {value:.2f}"
    except optuna.TrialPruned as pruned:
        study.tell(trial, state=states.PRUNED)
        said = str(pruned)
    except Exception as error:  # a trial that fails is not the end of a search, whatever it fails by
        said = " ".join(str(error).split()) or type(error).__name__
        known = isinstance(error, (UsageError, RunError))
        said = said if known else f"{type(error).__name__}: {said} (a fault of the program or of a part)"
        trial.set_user_attr("error", said)
        study.tell(trial, state=states.FAIL)
        said = f"failed: {said}"
    best = best_of(study)
    so_far = "" if best is None else f", best so far {best.value:.2f} (trial {best.number + 1})"
    chosen = " ".join(f"{option}={_short(value)}" for option, value in values.items())
    say(f"trial {trial.number + 1} of {search.trials}: {said}{so_far}  [{chosen}]")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else _text(value)


def best_of(study: "Study") -> "FrozenTrial | None":
    """The finished trial with the highest return, the first of equal ones."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE" and t.value is not None]
    return max(done, key=lambda trial: (trial.value, -trial.number), default=None)


def run(
    place: Path, arguments: Sequence[str], values: Mapping[str, Any], seed: int, callbacks: Sequence[Any] = ()
) -> float:
    """One ordinary run in `place`, or the rest of one that was interrupted there; its return."""
    from dqn.api import train

    if [*place.glob("checkpoints/*.json")]:
        agent = train(resume=place, callbacks=callbacks, progress=False)
    else:
        if place.exists():  # it was ended before its first checkpoint
            shutil.rmtree(place)
        options = [f"{option}={_text(value)}" for option, value in values.items()]
        agent = train(seed=seed, overrides=[*arguments, *options], callbacks=callbacks, progress=False, directory=place)
    return returned(agent.result)


def returned(result: Any) -> float:
    """The mean return of the closing evaluation, or of the last episodes of training; nan where there is none."""
    found = result.get("evaluation") or {}
    value = found.get("mean", (result.get("training") or {}).get("return"))
    return float(value) if isinstance(value, (int, float)) else nan


def end(search: Search, study: "Study") -> None:
    """What was found: failures, the best trial as an experiment, pictures, and the comparison on fresh seeds."""
    trials = study.get_trials(deepcopy=False)
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    say(f"\n{len(trials)} trials: {len(trials) - pruned - len(failed)} finished, {pruned} pruned, {len(failed)} failed")
    for trial in failed:
        say(f"  trial {trial.number + 1} failed: {trial.user_attrs.get('error', 'no reason is known')}")
    best = best_of(study)
    if best is None:
        raise RunError("No trial was finished: see what failed, and give the trials more steps or a narrower space.")
    values = {}
    for option, among in search.space.items():
        found = best.params[option]
        values[option] = next(v for v in among if _text(v) == found) if isinstance(among, list) else found
    write_best(search, values, best)
    write_pictures(search, study)
    if search.seeds:
        _in_processes(search, partial(run_fresh, values, best.number + 1))
        compare(search, best.number + 1)


def run_fresh(values: Mapping[str, Any], trial: int, search: Search, worker: int = 0) -> None:
    """Runs of the default and of the best trial on fresh seeds, those of one process."""
    for number, (place, name, seed) in enumerate(_fresh(search, trial)):
        if number % search.jobs != worker:
            continue
        result = place / "result.json"
        if not result.is_file() or json.loads(result.read_text()).get("evaluation") is None:
            value = run(place, search.arguments, values if name == "best" else {}, seed)
            say(f"{name}, seed {seed}: return {value:.2f}")


def _fresh(search: Search, trial: int) -> list[tuple[Path, str, int]]:
    """Where each run of the comparison lies. No trial has its seed."""
    seeds = range(search.seed + 1, search.seed + 1 + search.seeds)
    names = {"default": "default", "best": f"trial{trial}"}
    return [(search.directory / "fresh" / f"{names[n]}-seed{s}", n, s) for s in seeds for n in names]


def compare(search: Search, trial: int) -> None:
    """Say whether the best trial is better than the default, on seeds that chose neither."""
    from dqn.reports.statistics import interval

    found: dict[str, list[float]] = {"default": [], "best": []}
    for place, name, _ in _fresh(search, trial):
        found[name].append(returned(json.loads((place / "result.json").read_text())))
    if not all(isfinite(value) for values in found.values() for value in values):
        raise RunError("A run of the comparison has no return: give the runs more steps.")
    seeds = f"{search.seeds} fresh seed{'s' if search.seeds > 1 else ''}"
    say(f"\nReturn on {seeds}: interquartile mean, with its 95 % bootstrap interval")
    ends = {name: interval(values) for name, values in found.items()}
    for name, (middle, low, high) in ends.items():
        say(f"  {name:<8} {middle:10.2f}  [{low:.2f}, {high:.2f}]")
    say(verdict(ends["default"], ends["best"], search.seeds))


def verdict(default: Sequence[float], best: Sequence[float], seeds: int) -> str:
    """One sentence about two interquartile means with their intervals."""
    if best[0] <= default[0]:
        return "The search does not beat the default: keep the default."
    if seeds < FEW:
        return f"Too few seeds to say whether the best trial beats the default: set tune.seeds={FEW} or more."
    if best[1] <= default[2]:
        return "The search is not shown to beat the default: the best trial is higher, but the intervals overlap."
    return "The best trial beats the default: the intervals do not overlap."


def write_best(search: Search, values: Mapping[str, Any], best: "FrozenTrial") -> None:
    """The best trial as experiment/best.yaml, for python -m dqn.train --config-dir DIR experiment=best."""
    from dqn.tracking.checkpoint import write_text

    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    pair = str(OmegaConf.select(run_config(search.directory / "trials" / str(best.number + 1)), "tuned.for_pair"))
    there = pair != "none" and (CONF / "experiment" / f"{pair}.yaml").is_file()
    base = [pair] if there else []  # whose place this experiment takes
    chosen = [{f"override /{option}": value} for option, value in values.items() if option in groups]
    numbers: dict[str, Any] = {}
    for option, value in values.items():
        if option not in groups:
            OmegaConf.update(nested := OmegaConf.create(numbers), option, value, force_add=True)
            numbers = OmegaConf.to_container(nested)  # pyright: ignore[reportAssignmentType]
    content = {"defaults": [*base, *chosen, "_self_"], **numbers}
    command = f"python -m dqn.train --config-dir {quote(str(search.directory))} experiment=best"
    command = " ".join([command, *(quote(a) for a in search.arguments if not a.startswith("experiment="))])
    source = f"# Source: trial {best.number + 1} of a search over tune={search.name}, return {best.value:.2f}, seed "
    head = f"# @package _global_\n{source}{search.seed}\n#   {command}\n"
    (search.directory / "experiment").mkdir(exist_ok=True)
    write_text(search.directory / "experiment" / "best.yaml", head + OmegaConf.to_yaml(OmegaConf.create(content)))
    say(f"Best is trial {best.number + 1} with a return of {best.value:.2f}:")
    say("".join(f"  {option}={_text(value)}\n" for option, value in values.items()).rstrip())
    say(f"It is written to {search.directory / 'experiment' / 'best.yaml'}:\n  {command}")


def write_pictures(search: Search, study: "Study") -> None:
    """history.png and importance.png, where matplotlib is installed and there are trials enough."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        say("Pictures of the search need matplotlib: pip install 'dqn-family[plot]'.")
        return
    from dqn.reports.figures import drawn as picture
    from dqn.tracking.checkpoint import write_bytes

    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    weights = importance(study)

    def history(figure: Any) -> bool:
        axes = figure.subplots()
        numbers, values = [t.number + 1 for t in done], [float(t.value or 0.0) for t in done]
        axes.plot(numbers, values, "o", label="trial")
        axes.step(numbers, [max(values[: i + 1]) for i in range(len(values))], where="post", label="best so far")
        axes.set(xlabel="trial", ylabel="return")
        axes.legend()
        return True

    def bars(figure: Any) -> bool:
        axes = figure.subplots()
        axes.barh([*weights][::-1], [*weights.values()][::-1])
        axes.set(xlabel="importance (PED-ANOVA)")
        return bool(weights)

    made = (picture("history", "", (6.4, 3.6), history), picture("importance", "", (6.4, 0.4 * len(weights) + 1), bars))
    for one in made:
        if one is not None:
            write_bytes(search.directory / f"{one.name}.png", one.png)


def importance(study: "Study") -> dict[str, float]:
    """How much each option matters for being among the better trials: PED-ANOVA, Watanabe et al. (2023); empty where
    the trials are too few or too equal to tell."""
    import optuna

    try:
        return optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):
        return {}


def main() -> None:
    verb(tune, HELP.format(spaces=", ".join(_spaces())))


if __name__ == "__main__":
    main()
