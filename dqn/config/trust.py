"""Which names a stored configuration may use: what lies in a run's directory is data, and data must not execute code.

A configuration from this command line and from the package's `conf/` may name any class. One that was read from a run's
directory may name the parts of this package, torch's optimizers, Gymnasium's wrappers, and what the user trusts.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from inspect import isclass, isfunction
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqn.errors import UsageError

PARTS = (  # classes, functions, or modules with all that is defined in and below them
    "dqn.networks", "dqn.ops", "dqn.acting.exploration", "dqn.learning.terms", "dqn.replay.samplers",
    "dqn.replay.prioritized", "dqn.envs.tensor", "dqn.envs.last_step", "dqn.envs.wrappers.LastStep",
    "dqn.execution.engines", "dqn.programs",
    "torch.optim",
    "gymnasium.wrappers",
)  # fmt: skip
WRITERS = ("RecordVideo",)  # these write files where they are told to
IMPORTS = ("dqn.envs", "ale_py")  # packages that conf/env names
FORBIDDEN = ("hydra", "defaults")  # sections that Hydra would act on before anything could be checked
FOREIGN = re.compile(r"GymV\d+Environment")  # ids of Gymnasium that make whatever their arguments name
SCORES = r"dqn\.envs\.tasks\.[a-z0-9_]+:(second_)?score"  # functions of this package that score texts
INTERPOLATION = re.compile(r"\$\{(?!\s*[\w.]+\s*\}|\s*(?:mul|max)\s*:)([^}]*)")  # anything but an option, mul and max


def check_stored(cfg: DictConfig, path: Path) -> None:
    """Refuse a stored configuration that is more than options: sections of Hydra's, and interpolations that call.

    Errors: UsageError, which names the option.
    """
    for section in FORBIDDEN:
        if section in cfg:
            raise UsageError(
                f"{path} has a section `{section}`, which is not an option of a run and might execute code: remove it "
                "if you know where the file comes from."
            )
    for name, text in _strings(cfg):
        found = INTERPOLATION.search(text)
        if found:
            raise UsageError(
                f"{path} has {name}={text}, and a stored configuration may refer to its own options alone, not to "
                f"`{found[1]}`: write the value in its place."
            )


def check_parts(cfg: DictConfig, path: Path, trust: Sequence[str] = ()) -> None:
    """Refuse a stored configuration that names code which is neither a known part nor of a module in `trust`.

    Errors: UsageError, which names the option, the code, and what to add to trust it.
    """
    for option, name in _foreign(_resolved(cfg, path), path, trust):
        raise _refusal(path, option, name)


def modules_to_trust(cfg: DictConfig, path: Path) -> list[str]:
    """What `trust=[…]` must name for whoever opens the run that `path` is the configuration of."""
    found = (_module(option, name) for option, name in _foreign(_resolved(cfg, path), path))
    return list(dict.fromkeys(found))


def _foreign(plain: dict[str, Any], path: Path, trust: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Each option that names code which is neither a known part nor trusted, and the name."""
    for name, target in _targets(plain):
        if not _is_part(target, trust):
            yield name, target
    env = plain.get("env")
    if not isinstance(env, dict):
        return
    imports = env.get("imports") or []
    for module in [imports] if isinstance(imports, str) else imports:
        if not _trusted(str(module), trust) and not (module in IMPORTS and _installed(str(module), path)):
            yield "env.imports", module
    id = str(env.get("id") or "")
    if ":" in id and not _trusted(id.partition(":")[0], trust):
        yield "env.id", id
    for option in ("score", "second_score"):
        name = str(env.get(option) or "")
        if name and not _trusted(name, trust) and not re.fullmatch(SCORES, name):
            yield f"env.{option}", name
    if FOREIGN.match(id) and not _trusted(id, trust):
        yield "env.id", id


def _module(option: str, name: Any) -> str:
    """The module that one would have to trust."""
    module = str(name).partition(":")[0]
    return module if option.startswith("env.") else module.rpartition(".")[0] or module


def _refusal(path: Path, option: str, name: Any) -> UsageError:
    return UsageError(
        f"{path} names {option}={name}, which is no part of this package: it would execute code. If you know where the "
        f"run comes from, add trust=[{_module(option, name)}]."
    )


def _trusted(name: str, trust: Sequence[str]) -> bool:
    return any(name == module or name.startswith((f"{module}.", f"{module}:")) for module in trust)


def _is_part(target: Any, trust: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    if _trusted(target, trust):
        return True
    if not _below(target, PARTS) or any(piece.startswith("_") for piece in target.split(".")):
        return False
    found = _locate(target)
    if not (isclass(found) or isfunction(found)):
        return False
    # Any module can be reached through one that imports it, so what counts is where the code was defined.
    return _below(f"{found.__module__}.{found.__name__}", PARTS) and found.__name__ not in WRITERS


def _below(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _locate(target: str) -> Any:
    """The attribute of a module that a dotted name stands for, or None."""
    module, _, name = target.rpartition(".")
    try:
        owner = importlib.import_module(module)
    except ImportError:
        return None
    return vars(owner).get(name) if isinstance(owner, ModuleType) else None


def _installed(module: str, path: Path) -> bool:
    """Whether a package comes from where packages are installed, and not from a file beside the run or the user."""
    if module in sys.modules:
        return True
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return spec is None  # making the environment says that it is missing
    places = {path.resolve().parent, Path.cwd()}
    origin = Path(spec.origin).resolve().parent
    return not places & {origin, origin.parent}


def _resolved(cfg: DictConfig, path: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except (OmegaConfBaseException, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} cannot be read ({' '.join(str(error).split())}).") from error
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def _strings(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value that is text, keys included, with the name of its option, as it is written."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(str(key), f"{prefix}{key}")
            yield from _strings(value, f"{prefix}{key}.")
    elif isinstance(node, (list, ListConfig)):
        for number, value in enumerate(node):
            yield from _strings(value, f"{prefix}{number}.")
    elif isinstance(node, str):
        yield prefix.rstrip("."), node


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` with its name, however deep it lies."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield f"{prefix}_target_", node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{prefix}{key}.")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{prefix}{number}.")
