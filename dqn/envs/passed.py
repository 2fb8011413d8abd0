"""Environments that a Python program passes as objects: what the configuration calls them, and how they are found.

A configuration is plain data, so an environment stands in it by a name, `env.id`:
`CartPole-v1` is registered with Gymnasium; `module:MyEnv` is a class or a function of a module that can be imported;
`from_python/MyEnv` can only be passed by the program that has it, as a lambda or a class of a notebook.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import isclass, isfunction
from typing import Any, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from dqn.errors import UsageError

FROM_PYTHON = "from_python/"  # ids of what cannot be imported begin with it
PLAIN = (OrderEnforcing, PassiveEnvChecker, TimeLimit)  # the wrappers that gymnasium.make itself puts around
Factory = Callable[..., gymnasium.Env]
_standing: ContextVar[dict[str, Factory]] = ContextVar("environments of this program", default={})  # noqa: B039  # never changed in place


@dataclass(frozen=True)
class Passed:
    """An environment that was passed to `dqn.train` or `dqn.load`.

    `id`, `kwargs` and `limit` (a time limit that is not the registered one) are what the configuration records.
    `factory` makes one; None where the id is enough. `single`: it is one object, so that no second environment can be
    made. `module` is the one that the id names, for `trust`.
    """

    id: str
    factory: Factory | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    single: bool = False
    module: str | None = None


class Lent(gymnasium.Wrapper):
    """An environment that belongs to the caller: it is played in, and never closed or changed."""

    spec: Any = None  # gymnasium.make writes it, here instead of on the caller's environment

    @property
    def unwrapped(self) -> gymnasium.Env:
        return self

    def close(self) -> None:
        """Its owner closes it."""


def _is_code(thing: Any) -> bool:
    """Whether it is a class or a plain function, which a copy is the same as."""
    return isclass(thing) or isfunction(thing)


def passed(env: Any) -> Passed:
    """What a Python program means by `env`: an id, a class, a function that makes one, or an environment.

    Errors: UsageError for anything else.
    """
    if isinstance(env, str):
        return Passed(env, module=env.partition(":")[0] if ":" in env else None)
    if isinstance(env, gymnasium.Env):
        return _instance(env)
    if not callable(env) or (hasattr(env, "num_envs") and not isclass(env)):
        raise UsageError(
            f"env must be an id, a class, a function that makes an environment, or one gymnasium.Env, got "
            f"{type(env).__name__}: for several environments pass the class or function with env.num_envs=N."
        )
    name = importable(env)
    if name is not None:
        return Passed(name, module=name.partition(":")[0])
    word = str(getattr(env, "__name__", None) or getattr(getattr(env, "func", None), "__name__", type(env).__name__))
    return Passed(FROM_PYTHON + re.sub(r"[^\w.-]", "", word), cast(Factory, env))


def importable(thing: Any) -> str | None:
    """`module:Name` of a class or function that another program can import, else None."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not _is_code(thing) or not module or not name or module == "__main__" or "<" in name:
        return None
    id = f"{module}:{name}"
    return id if _imported(id) is thing else None


def _instance(env: gymnasium.Env) -> Passed:
    """An environment that exists; recorded by its id where `gymnasium.make` would make the same again."""
    id, kwargs, limit = FROM_PYTHON + type(env.unwrapped).__name__, dict[str, Any](), None
    layer: Any = env
    while isinstance(layer, PLAIN):
        layer = layer.env
    spec = env.spec
    if spec is not None and layer is env.unwrapped and spec.id in gymnasium.registry:
        given = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
        if all(isinstance(value, (bool, int, float, str, type(None))) for value in given.values()):
            id, kwargs = spec.id, given
            if spec.max_episode_steps != gymnasium.registry[id].max_episode_steps:
                limit = spec.max_episode_steps

    def lend(**made_with: Any) -> gymnasium.Env:
        return Lent(env)

    return Passed(id, lend, kwargs, limit, single=True)


def factory_of(env: Passed) -> Factory:
    """What makes the environment, also where its id is enough."""
    if env.factory is not None:
        return env.factory
    found = source(env.id)
    return lambda **kwargs: gymnasium.make(found, **kwargs)


@contextmanager
def standing(id: str, factory: Factory | None) -> Iterator[None]:
    """While the block runs, `env.id=id` means what `factory` makes; without one nothing changes."""
    token = _standing.set(_standing.get() if factory is None else {**_standing.get(), id: factory})
    try:
        yield
    finally:
        _standing.reset(token)


def is_standing(id: str) -> bool:
    """Whether this program has passed the environment, so that no other process can make it by its name."""
    return id in _standing.get()


def source(id: str) -> str | EnvSpec:
    """What gymnasium.make takes for `env.id`: the id itself where it is registered, else how it is made.

    Errors: UsageError for an environment that a program has to pass, and did not.
    """
    factory = _standing.get().get(id)
    if factory is None and id.startswith(FROM_PYTHON):
        raise UsageError(
            f"env.id={id} cannot be imported, as it was passed by a Python program: pass it again there, as "
            "dqn.load(RUN, env=…) or dqn.train(resume=RUN, env=…)."
        )
    if factory is None and ":" in id:
        factory = _imported(id)
    if factory is None:
        return id

    def made(**kwargs: Any) -> gymnasium.Env:
        return factory(**kwargs)

    # Gymnasium copies the specification and all that is in it: a function is copied as itself, an object is not.
    return EnvSpec(id, entry_point=factory if _is_code(factory) else made)


def _imported(id: str) -> Any:
    """The class or function that `module:Name` names, or None where it names a registered environment or nothing.

    It must be defined in the package that the id names, since that is what `trust` speaks of.
    """
    module, _, name = id.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (ImportError, ValueError, TypeError):  # Gymnasium imports it once more, and says what is wrong
        return None
    if name in gymnasium.registry:
        return None
    for number, word in enumerate(name.split(".")):
        if number and not isclass(found):
            return None
        found = vars(found).get(word)
    defined = str(getattr(found, "__module__", "")).partition(".")[0]
    return found if callable(found) and defined == module.partition(".")[0] else None
