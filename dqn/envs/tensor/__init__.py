"""Worlds as tensor programs: E environments at once, on any device, traced and captured with the step around them."""

from collections.abc import Callable

from dqn.envs.tensor.classic import Acrobot, CartPole, MountainCar
from dqn.envs.tensor.grids import Catch, DeepSea
from dqn.envs.tensor.tabular import chain, random_mdp
from dqn.envs.tensor.world import World

WORLDS: dict[str, Callable[..., World]] = {
    "cartpole": CartPole,
    "acrobot": Acrobot,
    "mountaincar": MountainCar,
    "catch": Catch,
    "deepsea": DeepSea,
    "mdp1000": random_mdp,
    "chain": chain,
}
