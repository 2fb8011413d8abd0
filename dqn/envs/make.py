"""Making Gymnasium environments, one or many; what cannot be made is said in one sentence."""

import atexit
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dqn.envs.gym import GymEnvs
from dqn.envs.passed import source
from dqn.envs.spaces import MAX_ACTIONS
from dqn.envs.vector import WatchedVector
from dqn.envs.workers import Workers
from dqn.envs.wrappers import make_one
from dqn.errors import UsageError
from dqn.processes import ignore_signals

VECTORIZATIONS = ("sync", "async", "vector_entry_point")
MASKS = ("auto", "required", "none")


def make(
    id: str,
    num_envs: int = 1,
    vectorization: str = "sync",
    autoreset: str = "same_step",
    imports: Sequence[str] = (),
    kwargs: dict[str, Any] | None = None,
    max_episode_steps: int | None = None,
    action_mask: str = "auto",
    wrappers: Mapping[str, Callable[[gymnasium.Env], gymnasium.Env]] | None = None,
    max_actions: int = MAX_ACTIONS,
    episode_info: Sequence[str] = (),
) -> GymEnvs:
    """`num_envs` copies of the Gymnasium environment `id`; `imports` names the packages that register it. An id
    `module:Name` is a class or function of a module, which needs no registration (envs.passed).

    `vectorization`: `sync` (one process), `async` (a process each) or `vector_entry_point` (the environment's own
    vector class). `autoreset`: `next_step`, `same_step` or `disabled`; an environment's own vector class brings its
    own. `max_episode_steps` replaces the environment's own time limit. `wrappers` are put around each environment by
    their names, the first innermost. `action_mask`: legal actions by info["action_mask"] [A], or an entry `action_mask`
    of a Dict observation, where the environment gives them (`auto`), always (`required`) or never (`none`). A mask has
    the values 0 and 1 in any dtype, one for each action; of MultiDiscrete actions one for each combination, [A] or [n₁,
    n₂, …]. `max_actions` is how many combinations of MultiDiscrete or MultiBinary actions are taken, at most.
    `episode_info` names values of the info that are handed on where an episode ends. Errors: UsageError, one sentence,
    for an unknown environment, a missing package or spaces DQN cannot use.
    """
    mode = _checked(num_envs, vectorization, action_mask, autoreset)
    kwargs, wrappers = dict(kwargs or {}), dict(wrappers or {})
    if wrappers and vectorization == "vector_entry_point":
        raise UsageError(
            f"env.wrappers ({', '.join(wrappers)}) go around single environments: set env.vectorization=sync or async, "
            f"or env.wrappers.{next(iter(wrappers))}=null."
        )
    with _one_sentence(id, kwargs):
        for module in imports:
            importlib.import_module(module)
        found = source(id)
        one = partial(
            make_one, source=found, imports=imports, kwargs=kwargs, limit=max_episode_steps, wrappers=wrappers,
            max_actions=max_actions, masks=action_mask != "none", episode_info=tuple(episode_info),
        )  # fmt: skip
        if vectorization == "vector_entry_point":
            if not isinstance(found, str):
                raise UsageError(
                    f"env.vectorization=vector_entry_point makes environments that are registered with Gymnasium, and "
                    f"{id} is not: set env.vectorization=sync or async."
                )
            limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
            envs = gymnasium.make_vec(id, num_envs, vectorization_mode=vectorization, **limit, **kwargs)
            return GymEnvs(WatchedVector(envs, id, tuple(episode_info)), action_mask, None, max_actions, episode_info)
        makers = [partial(one, index) for index in range(num_envs)]
        if vectorization == "async":  # spawn: a forked child of a threaded torch may hang
            with ignore_signals():
                workers = Workers(makers, autoreset_mode=mode, context="spawn")
            atexit.register(_end, ref(workers))
            return GymEnvs(workers, action_mask, id, max_actions, episode_info)
        with _closed_on_failure(makers) as noted:
            return GymEnvs(SyncVectorEnv(noted, autoreset_mode=mode), action_mask, None, max_actions, episode_info)


@contextmanager
def _closed_on_failure(makers: Sequence[Callable[[], gymnasium.Env]]) -> Iterator[list[Callable[[], gymnasium.Env]]]:
    """The makers, noting what they make: where one fails, or what follows, all that were made are closed."""
    made: list[gymnasium.Env] = []

    def noting(maker: Callable[[], gymnasium.Env]) -> gymnasium.Env:
        made.append(maker())
        return made[-1]

    try:
        yield [partial(noting, maker) for maker in makers]
    except BaseException:
        for env in made:
            env.close()
        raise


def _checked(num_envs: int, vectorization: str, action_mask: str, autoreset: str) -> AutoresetMode:
    """The autoreset mode. Errors: UsageError for what is no choice of an option."""
    if num_envs < 1:
        raise UsageError(f"env.num_envs must be ≥ 1, got {num_envs}.")
    if vectorization not in VECTORIZATIONS:
        raise UsageError(f"env.vectorization must be one of {', '.join(VECTORIZATIONS)}, got {vectorization!r}.")
    if action_mask not in MASKS:
        raise UsageError(f"env.action_mask must be one of {', '.join(MASKS)}, got {action_mask!r}.")
    try:
        return AutoresetMode[str(autoreset).upper()]
    except KeyError:
        raise UsageError(f"env.autoreset must be next_step, same_step or disabled, got {autoreset!r}.") from None


def _end(workers: ref[Workers]) -> None:
    """An interpreter that ends without `close` asks its workers to end by a signal which they ignore, and waits."""
    if (left := workers()) is not None:
        for process in left.processes:
            process.kill()


@contextmanager
def _one_sentence(id: str, kwargs: dict[str, Any]) -> Iterator[None]:
    """What Gymnasium and Python say of an environment that cannot be made, as UsageErrors."""
    try:
        yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"{id} needs a package that is not installed: {_first_line(error)}.") from error
    except ImportError as error:
        raise UsageError(
            f"{id} cannot be imported ({_first_line(error)}): install its package or correct env.imports."
        ) from error
    except gymnasium.error.Error as error:
        raise UsageError(
            f"env.id={id} cannot be made ({_first_line(error)}); if a package registers it, "
            "name it with env.imports=[package]."
        ) from error
    except SystemExit as error:  # of a vector class of its own: it would end the program as if all were well
        raise UsageError(f"{id} cannot be made: it raised SystemExit({error.code}).") from error
    except (EOFError, ConnectionError) as error:
        raise UsageError(f"a process of {id} died as its environment was made: what it said stands above.") from error
    except TypeError as error:
        raise UsageError(f"env.id={id} cannot be made with env.kwargs={kwargs} ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
