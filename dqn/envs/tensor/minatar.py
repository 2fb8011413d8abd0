"""The five games of MinAtar by their names. Young & Tian (2019)."""

from dqn.envs.tensor.minatar_asterix import Asterix
from dqn.envs.tensor.minatar_board import Game
from dqn.envs.tensor.minatar_breakout import Breakout
from dqn.envs.tensor.minatar_freeway import Freeway
from dqn.envs.tensor.minatar_seaquest import Seaquest
from dqn.envs.tensor.minatar_space_invaders import SpaceInvaders

GAMES: dict[str, type[Game]] = {
    "asterix": Asterix,
    "breakout": Breakout,
    "freeway": Freeway,
    "seaquest": Seaquest,
    "space_invaders": SpaceInvaders,
}
