"""The front door of every verb: where configuration lives, and how an error becomes one sentence."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from math import nan, prod
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dqn.trust import check_parts, check_stored
from dqn.types import RunError, UsageError

HERE = Path(__file__).resolve().parent
OmegaConf.register_new_resolver("mul", lambda *numbers: prod(numbers), replace=True)  # ${mul:${env.num_envs},32}
OmegaConf.register_new_resolver("max", max, replace=True)  # ${max:50000,${mul:5000,${env.num_envs}}}
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())  # wheel, checkout


def option_names(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Every option of a configuration by its dotted name."""
    for key in cfg:
        if not str(key).startswith("_"):
            yield f"{prefix}{key}"
            node = cfg._get_node(key) if OmegaConf.is_dict(cfg) else None
            if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
                yield from option_names(node, f"{prefix}{key}.")


def _known_names() -> list[str]:
    from hydra import compose, initialize_config_dir  # only when something is wrong

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return [*option_names(compose("config")), *(p.name for p in CONF.iterdir() if p.is_dir())]


def nearest(name: str, known: list[str]) -> str:
    """' (did you mean …?)', or nothing where no name is near."""
    found = difflib.get_close_matches(name, known, 1, 0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _unknown(name: str) -> str:
    if name.startswith(("env.kwargs", "env.wrappers")):
        return f"{name} is new: put a plus before it, +{name}=…"
    if name in (known := _known_names()):
        return f"{name} belongs to another choice of {name.partition('.')[0]}: choose that one, or leave it out."
    return f"{name} is not an option{nearest(name, known)}: python -m dqn.train --help lists them all."


def explain(error: BaseException) -> str:
    """One sentence for an error of configuration."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        part = re.search(r"full_key: (\S+)", str(error))
        reason = " ".join(str(error.__cause__).split()).replace(".__init__()", "")
        return f"{part[1] + ': ' if part else ''}{reason.rstrip('.')}."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        near, known = nearest(choice, [*error.options]), ", ".join(error.options)
        return f"{group}={choice} is not known{near}: choose one of {known}."
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


def fail(message: str, code: int) -> NoReturn:
    """End here, with one sentence on stderr."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def front_door(job: Callable[[], Any]) -> Any:
    """Run a job; bad input ends with one sentence and exit code 2, a broken run with one and code 1."""
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, "")  # as python -m does: parts and worlds of one's own lie where one is
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors on instead of printing them its own way
    try:
        return job()
    except UsageError as error:
        fail(str(error), 2)
    except RunError as error:
        fail(str(error), 1)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        if isinstance(error, InstantiationException) and isinstance(cause, (UsageError, RunError)):
            fail(str(cause), 2)
        fail(explain(error), 2)
    except PermissionError as error:
        fail(
            f"{error.filename} cannot be written ({error.strerror}): choose another place with run.dir=PATH.",
            2,
        )
    except (NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        fail(f"{error.filename} is no directory and cannot be made: choose another place with run.dir=PATH.", 2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # as torch's own is
            raise
        fail(f"not enough memory ({' '.join(str(error).split())[:200]}): make the network or the batch smaller.", 2)
    except BrokenPipeError:  # as of --help | head
        os._exit(0)
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror or error}.", 1)
