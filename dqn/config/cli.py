"""The front door of every verb: where configuration lives, and how an error becomes one sentence."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import nan, prod
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dqn import __version__
from dqn.config.trust import check_parts, check_stored
from dqn.errors import RunError, UsageError

HERE = Path(__file__).resolve().parent.parent  # dqn/
OmegaConf.register_new_resolver("mul", lambda *numbers: prod(numbers), replace=True)  # ${mul:${env.num_envs},32}
OmegaConf.register_new_resolver("max", max, replace=True)  # ${max:50000,${mul:5000,${env.num_envs}}}
# ${at_start:${steps}}: the value that the option has when a run begins. A run's config.yaml holds that value and no
# longer refers to the option (dqn.config.resume.stored_text), so a resume with other steps leaves it as it was.
OmegaConf.register_new_resolver("at_start", lambda value: value, replace=True)


def _chosen(group: str) -> str | None:
    """What this command line chooses of a group, where it is one that Hydra has read."""
    return HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None


OmegaConf.register_new_resolver("chosen", _chosen, replace=True)  # ${chosen:algorithm}
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())  # wheel, checkout


def option_names(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Every option of a configuration by its dotted name."""
    for key in cfg:
        if not str(key).startswith("_"):
            yield f"{prefix}{key}"
            node = cfg._get_node(key) if OmegaConf.is_dict(cfg) else None
            if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
                yield from option_names(node, f"{prefix}{key}.")


def plain_options(cfg: DictConfig) -> dict[str, Any]:
    """Every option as one value: of a part its name, of other sections nothing."""
    options: dict[str, Any] = {}
    for name in option_names(cfg):
        if name.startswith(("run", "resume", "chosen")):
            continue
        value = OmegaConf.select(cfg, name, throw_on_missing=False, throw_on_resolution_failure=False)
        if not OmegaConf.is_dict(value):
            options[name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        elif "_target_" in value:
            options[name] = part_name(value)
    return options


def part_name(node: Any) -> str:
    """The last word of the class or function that a part's configuration names."""
    return str(node.get("_target_", "")).rpartition(".")[2]


# What users of Stable-Baselines3, CleanRL and rl-baselines3-zoo type, and what it is called here.
ALIASES = {
    "learning_rate": "optimizer.lr", "lr": "optimizer.lr", "total_timesteps": "steps", "timesteps": "steps",
    "n_timesteps": "steps", "total_steps": "steps", "num_steps": "steps", "buffer_size": "replay.capacity",
    "batch_size": "replay.batch_size", "tau": "target.polyak", "train_freq": "train_every",
    "train_frequency": "train_every", "gradient_steps": "updates", "target_update_interval": "target.period",
    "target_network_frequency": "target.period", "exploration_fraction": "tuned.epsilon_steps",
    "exploration_initial_eps": "exploration.epsilon.start", "start_e": "exploration.epsilon.start",
    "exploration_final_eps": "tuned.epsilon_end", "end_e": "tuned.epsilon_end", "epsilon": "tuned.epsilon_end",
    "env_id": "env.id", "id": "env.id", "n_envs": "env.num_envs", "num_envs": "env.num_envs",
    "env_kwargs": "env.kwargs", "net_arch": "torso.hidden", "policy_kwargs": "torso.hidden", "hidden": "torso.hidden",
    "policy": "torso", "tensorboard_log": "run.dir", "log_dir": "run.dir", "logdir": "run.dir", "algo": "algorithm",
    "agent": "algorithm", "cuda": "device", "n_eval_episodes": "tracking.evaluate_episodes",
    "eval_episodes": "tracking.evaluate_episodes", "eval_freq": "tracking.evaluate_every",
    "save_freq": "tracking.checkpoint_every", "discount": "gamma", "dueling": "output", "double": "backup",
    "double_q": "backup", "prioritized_replay": "replay", "prioritized_replay_alpha": "tuned.priority_exponent",
    "alpha": "tuned.priority_exponent", "beta": "tuned.importance_start", "n_quantiles": "tuned.quantiles",
    "num_atoms": "head.atoms", "n_atoms": "head.atoms", "optimizer_class": "optimizer", "threads": "execution.threads",
    "num_threads": "execution.threads", "compile": "execution", "checkpoint": "resume", "load": "resume",
    "pretrained": "init_from", "wrappers": "env.wrappers", "max_steps": "steps", "log_interval": "tracking.log_every",
}  # fmt: skip
CHOICES = {  # the same for what is chosen
    ("algorithm", "ddqn"): "double_dqn", ("algorithm", "doubledqn"): "double_dqn",
    ("algorithm", "double"): "double_dqn",
    ("algorithm", "d3qn"): "dueling", ("algorithm", "duelingdqn"): "dueling", ("algorithm", "dueling_dqn"): "dueling",
    ("algorithm", "qrdqn"): "qr_dqn", ("algorithm", "noisynet"): "noisy_dqn", ("algorithm", "noisy"): "noisy_dqn",
    ("algorithm", "categorical"): "c51", ("algorithm", "prioritized"): "per", ("algorithm", "q_learning"): "tabular",
    ("algorithm", "qlearning"): "tabular", ("algorithm", "mdqn"): "munchausen", ("algorithm", "m_dqn"): "munchausen",
    ("replay", "per"): "prioritized", ("head", "c51"): "categorical", ("head", "qr"): "quantile",
    ("head", "iqn"): "implicit_quantile", ("head", "fqf"): "full_quantile", ("target", "hard"): "period",
    ("target", "soft"): "polyak", ("core", "rnn"): "lstm", ("torso", "cnn"): "nature_cnn",
}  # fmt: skip


def _known_names() -> list[str]:
    from hydra import compose, initialize_config_dir  # only when something is wrong

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [*option_names(compose("config")), *(p.name for p in CONF.iterdir() if p.is_dir())]


def nearest(name: str, known: list[str]) -> str:
    """' (did you mean …?)', or nothing where no name is near."""
    if name in ALIASES and ALIASES[name] in known:
        return f" (did you mean {ALIASES[name]}?)"
    found = difflib.get_close_matches(name, known, 1, 0.6)
    if not found and "." not in name:  # the last word of an option alone
        found = [one for one in known if one.rpartition(".")[2] == name][:1]
    return f" (did you mean {found[0]}?)" if found else ""


def _unknown(name: str) -> str:
    if name.partition(".")[0] == "tune":
        return f"{name} is an option of a search: python -m dqn.tune."
    if name.startswith(("env.kwargs", "env.wrappers")):
        return f"{name} is new: put a plus before it, +{name}=…"
    if name in (known := _known_names()):
        return f"{name} belongs to another choice of {name.partition('.')[0]}: choose that one, or leave it out."
    return f"{name} is not an option{nearest(name, known)}: python -m dqn.train --help lists them all."


def _unknown_choice(group: str, choice: str, options: list[str]) -> str:
    if group == "env" and choice not in options and re.search(r"-v\d+$|[A-Z/:]", choice):
        return f"env={choice} is not known: for an environment by its id write env=gym env.id={choice}."
    plain = choice.lower().replace("-", "_")
    usual = plain if plain in options else CHOICES.get((group, plain))
    near = f" (did you mean {usual}?)" if usual in options else nearest(choice, options)
    return f"{group}={choice} is not known{near}: choose one of {', '.join(options)}."


REMOVABLE = ("env.kwargs.", "env.wrappers.", "terms.", "torso.keys.")  # what is named by the user, not by conf/


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse overrides that Hydra would answer with an error of its own. Errors: UsageError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for argument in arguments:
        if argument.startswith("-"):
            continue
        try:
            (override,) = OverridesParser.create().parse_overrides([argument])
        except (HydraException, ValueError):  # Hydra says what is wrong
            continue
        if override.key_or_group in ("run", "run.dir") and not isinstance(override.value(), (str, QuotedString)):
            raise UsageError(f"{argument}: run.dir=PATH names the directory of the run.")
        name, value = override.key_or_group.partition("@")[0].lstrip("/"), override.value()
        if override.is_delete() and not name.startswith(REMOVABLE):
            raise UsageError(f"{argument}: an option cannot be removed; where it may be none it is set to null.")
        choices = value.list if isinstance(value, ChoiceSweep) else [value]
        if name in groups and not all(isinstance(choice, (str, QuotedString)) for choice in choices):
            known = ", ".join(sorted(path.stem for path in (CONF / name).glob("*.yaml")))
            raise UsageError(f"{argument}: {name} is chosen by its name: choose one of {known}.")
        if name in groups and argument.startswith("+"):
            raise UsageError(f"{argument}: {name} is always there, without a plus: {argument.lstrip('+')}")


def explain(error: BaseException) -> str:
    """One sentence for an error of configuration."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        part = re.search(r"full_key: (\S+)", str(error))
        reason = " ".join(str(error.__cause__).split()).replace(".__init__()", "")
        return f"{part[1] + ': ' if part else ''}{reason.rstrip('.')}."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).partition("/")
        return _unknown_choice(group, choice, [*error.options])
    text = str(error)
    unknown = re.search(
        r"Could not override '([^']+)'|Key '([^']+)' is not in struct|In '[^']+': Could not find '([^']+)'",
        text,
    )
    if unknown:
        name = next(group for group in unknown.groups() if group)
        return _unknown(name)
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]} has no value: set it with {missing[1]}=…"
    said = " ".join((text.strip().splitlines() or [type(error).__name__])[0].split())
    if "Lexer" in said or "mismatched input" in said or "extraneous input" in said:
        said += " (a value with letters other than a-z 0-9 _ - . / : wants quotes twice: \"name='value'\")"
    return f"{said} (-m for a sweep over several values, quotes for one with a comma)" if "Ambiguous" in said else said


def text(name: str, value: str) -> str:
    """The value as it was typed: a run's directory may be called 001."""
    return value


def whole(least: int) -> Callable[[str, str], int]:
    """Reads a whole number of at least `least`; 1e3 is one."""

    def read(name: str, value: str) -> int:
        try:
            number = float(value.replace("_", "") if value.strip("_") == value else value)
        except ValueError:
            number = nan
        if not number.is_integer() or number < least:
            raise UsageError(f"{name} must be a whole number ≥ {least}, got {value!r}.")
        return int(value) if value.isdecimal() else int(number)

    return read


def real(low: float, high: float) -> Callable[[str, str], float]:
    """Reads a number between two others."""

    def read(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = nan
        if not low <= number <= high:
            raise UsageError(f"{name} must be a number between {low:g} and {high:g}, got {value!r}.")
        return number

    return read


def names(name: str, value: str) -> tuple[str, ...]:
    """Reads [a,b] or a,b."""
    return tuple(word.strip(" '\"") for word in value.strip("[] ").split(",") if word.strip(" '\""))


def verb_options(
    arguments: Sequence[str], usage: str, known: dict[str, Callable[[str, str], Any]], needed: str
) -> dict[str, Any]:
    """The options of a verb that takes no others, each read by its function; `needed` must be among them.

    Errors: UsageError.
    """
    given = {}
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not sign or name not in known:
            raise UsageError(f"{name} is not an option{nearest(name, [*known])}; {usage}.")
        given[name] = known[name](name, value)
    if not given.get(needed):
        raise UsageError(f"No {needed} was named; {usage}.")
    return given


def run_directory(option: str, value: str) -> Path:
    """The run's directory that an option names. Errors: UsageError where no run lies there."""
    directory = Path(value)
    if not (directory / "config.yaml").is_file():
        raise UsageError(f"{option}={value} is not a run's directory: it has no config.yaml.")
    return directory


def run_config(directory: Path) -> DictConfig:
    """The configuration that a run wrote in its directory, as data: before anything that it names is made, it must pass
    `trust.check_parts`. Errors: UsageError where it cannot be read, or is more than options."""
    path = directory / "config.yaml"
    try:
        text = path.read_text()
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # a few of them can fill the memory
            raise YAMLError("it has aliases, which no run writes")
        cfg = OmegaConf.create(text)
        if isinstance(cfg, DictConfig) and cfg:
            check_stored(cfg, path)
            return cfg
        reason = "it holds no options"
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise UsageError(f"{path} is damaged ({reason}): write there again what the run had, as in its TensorBoard text.")


def opened_run(directory: Path, trust: Sequence[str] = ()) -> DictConfig:
    """A run's configuration whose parts may be made: all of them are this package's or of modules in `trust`.

    Errors: UsageError, also where it names other code.
    """
    cfg = run_config(directory)
    check_parts(cfg, directory / "config.yaml", trust)
    return cfg


def say(message: str, stream: Any = None) -> None:
    """Print a line; letters that the stream cannot write are replaced, instead of an error."""
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(message.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def fail(message: str, code: int) -> NoReturn:
    """End here, with one sentence on stderr."""
    say(f"error: {message}", sys.stderr)
    sys.exit(code)


@contextmanager
def one_sentence() -> Iterator[None]:
    """What goes wrong inside becomes one of the two errors that users see; a fault of the program stays as it is.

    Errors: UsageError, RunError.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        known = isinstance(error, InstantiationException) and isinstance(cause, (UsageError, RunError))
        raise UsageError(str(cause) if known else explain(error)) from None
    except PermissionError as error:
        said = f"{_file(error)} cannot be written ({error.strerror}): choose another place with run.dir=PATH."
        raise UsageError(said) from error
    except (NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        said = f"{_file(error)} is no directory and cannot be made: choose another place with run.dir=PATH."
        raise UsageError(said) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # as torch's own is
            raise
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"not enough memory ({said}): make the network or the batch smaller.") from error
    except BrokenPipeError:  # as of --help | head
        raise
    except OSError as error:
        raise RunError(f"{_file(error)}: {error.strerror or error}.") from error


def front_door(job: Callable[[], Any]) -> Any:
    """Run a job; bad input ends with one sentence and exit code 2, a broken run with one and code 1."""
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, "")  # as python -m does: parts and worlds of one's own lie where one is
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors on instead of printing them its own way
    try:
        with one_sentence():
            return job()
    except KeyboardInterrupt:
        fail("Interrupted before anything was lost.", 130)
    except UsageError as error:
        fail(str(error), 2)
    except RunError as error:
        fail(str(error), 1)
    except BrokenPipeError:
        os._exit(0)


def verb(job: Callable[[list[str]], Any], usage: str) -> None:
    """A verb that reads its options itself from the arguments it is given; each answers --help and --version."""
    arguments = sys.argv[1:]
    if "--version" in arguments:
        say(f"dqn {__version__}")
    elif {"-h", "--help"} & {*arguments}:
        say(usage)
    else:
        front_door(lambda: job(arguments))


def _file(error: OSError) -> str:
    return os.fsdecode(error.filename) if error.filename else "the system"
