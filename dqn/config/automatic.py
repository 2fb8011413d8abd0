"""torso=auto as the configuration has it: whether it picks, what it picked in words, and numbers that it leaves out."""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from dqn.errors import UsageError
from dqn.networks.fitting import fitting
from dqn.networks.torsos import MLP
from dqn.types import Spec


def is_automatic(node: DictConfig) -> bool:
    """Whether a torso is picked by what is observed: torso=auto, and no class of one's own named in its place."""
    return "auto" in node and node.get("_target_") == f"{MLP.__module__}.{MLP.__qualname__}"


def picked(node: DictConfig, seen: Spec) -> DictConfig | None:
    """The options of the torso that is made; None where each entry of a Dict gets one of its own."""
    if not is_automatic(node):
        return node
    choice, _ = fitting(seen)
    return None if choice == "dict" else node if choice == "vector" else node.auto[choice]


def picked_line(node: DictConfig, seen: Spec, line: Callable[[DictConfig], str]) -> str:
    """The torso that is made, or one for each entry of a Dict, each in a `line`, and why."""

    def entry(spec: Spec) -> str:
        torso = picked(node, spec)
        return line(torso) if torso is not None else ", ".join(f"{name}: {entry(part)}" for name, part in spec.parts)

    return f"{entry(seen)}, auto: {fitting(seen)[1]}" if is_automatic(node) else entry(seen)


def refuse_unused(node: DictConfig, seen: Spec) -> None:
    """Refuse numbers for an MLP where torso=auto takes no MLP. Errors: UsageError."""
    choice, why = fitting(seen)
    if not is_automatic(node) or choice in ("vector", "dict"):  # a Dict may have entries for an MLP
        return
    for name in ("hidden", "norm"):
        if not OmegaConf.is_interpolation(node, name):
            other = node.auto[choice]._target_.rpartition(".")[2]
            raise UsageError(
                f"torso.{name} is an MLP's, and torso=auto takes {other}, because {why}: set "
                f"torso.auto.{choice}.{name}, or choose torso=mlp."
            )
