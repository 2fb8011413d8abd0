"""The front door of every verb: where configuration lives, and how an error becomes one sentence."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

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


def run_directory(option: str, value: str) -> Path:
    """The run's directory that an option names. Errors: UsageError where no run lies there."""
    directory = Path(value)
    if not (directory / "config.yaml").is_file():
        raise UsageError(f"{option}={value} is not a run's directory: it has no config.yaml.")
    run_config(directory)
    return directory


def run_config(directory: Path) -> DictConfig:
    """The configuration that a run wrote in its directory. Errors: UsageError where it cannot be read."""
    path = directory / "config.yaml"
    try:
        cfg = OmegaConf.load(path)
        if isinstance(cfg, DictConfig) and cfg:
            return cfg
        reason = "it holds no options"
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
    raise UsageError(f"{path} is damaged ({reason}): write there again what the run had, as in its TensorBoard text.")


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
