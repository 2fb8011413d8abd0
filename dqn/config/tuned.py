"""Numbers tuned for an environment are found by its id, whichever group it was chosen by."""

from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dqn.config.cli import CONF
from dqn.config.resume import STORED

VECTOR = "vector_entry_point"  # a vector class of its own: its numbers are for what that class shows


def by_id(cfg: DictConfig) -> DictConfig:
    """The configuration of this job, with the numbers for the environment's id where env.id was given.

    Hydra finds conf/tuned and conf/experiment by the name of the group: with `env=gym env.id=Acrobot-v1` it finds none,
    and with `env.id=Acrobot-v1` alone those of the default environment. Here they are those of the group that has this
    id, or none. What the command line chooses itself stands; a run's stored
    configuration keeps what it has.
    """
    job = HydraConfig.get()
    overrides = [*map(str, job.overrides.task)]
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    if job.job.config_name == STORED or "env.id" not in given or OmegaConf.is_missing(cfg.env, "id"):
        return cfg
    chosen, algorithm = str(job.runtime.choices.get("env")), str(job.runtime.choices.get("algorithm"))
    world = world_of(cfg.env, chosen)
    if world == chosen:
        return cfg
    names = {"tuned": f"{world}", "experiment": f"{algorithm}_{world}"}
    there = {group: name if (CONF / group / f"{name}.yaml").is_file() else "none" for group, name in names.items()}
    more = [f"{group}={name}" for group, name in there.items() if group not in given]
    return compose(job.job.config_name, [*overrides, *more])


def world_of(env: Any, chosen: str) -> str | None:
    """The name of the group whose environment this is: of the one that has this id, or, for another game of the same
    emulator (ALE/…), of the one that was `chosen`; None where there is none."""
    ids: dict[str, str] = {}
    for path in sorted((CONF / "env").glob("*.yaml")):
        group: Any = OmegaConf.load(path)
        if "id" not in group or OmegaConf.is_missing(group, "id"):
            continue
        ids[path.stem] = str(group.id)
        same_way = group.get("vectorization") != VECTOR or env.get("vectorization") == VECTOR
        if group.id == env.id and same_way:
            return path.stem
    family, _, game = str(env.id).partition("/")
    return chosen if game and ids.get(chosen, "").startswith(f"{family}/") else None


def directory_word(env: Any, chosen: str) -> str:
    """What a run's directory is called after its environment: the id, or the group where there is none."""
    id = "" if "id" not in env or OmegaConf.is_missing(env, "id") else str(env.id)
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in id) or chosen


OmegaConf.register_new_resolver("directory_word", directory_word, replace=True)
