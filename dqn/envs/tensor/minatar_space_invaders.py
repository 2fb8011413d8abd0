"""Space Invaders of MinAtar: a cannon below, a block of aliens above, and what they fire at each other."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dqn.envs.tensor.minatar_board import CELLS, SIZE, Game, Outcome, State, moved, whole
from dqn.types import Spec

LAST = SIZE - 1
WAVE = 24  # aliens
RELOAD, ALIENS_RELOAD = 5, 10  # steps between two shots
SLOWEST, FASTEST = 12, 6  # steps between two moves of a whole block: of the first wave, and as low as it gets


class SpaceInvaders(Game):
    """+1 for each alien shot; the end when an alien or a bomb hits the cannon, or aliens would leave at the bottom.

    Actions: none, left, right, fire. Channels: cannon, alien, alien going left, alien going right, the cannon's shots,
    the aliens' bombs. The aliens move every min(their number, interval) steps, and down instead, turning, where one is
    at the side they go to. Every 10 steps the lowest alien of the column nearest to the cannon fires, of two columns
    the left one. A new wave comes when all are shot; the interval is then one less, from 12 down to 6: the ramp.
    State: `x`, `way` (±1), `reload`, `move`, `fire` (steps until), `interval`, `count` (of the aliens), `last_action`
    [E], and the maps `aliens`, `shots`, `bombs` [E, 10, 10] uint8, 0 or 1: compiled for a CPU, bool is slower.
    Young & Tian (2019).
    """

    spec = Spec((SIZE, SIZE, 6), np.dtype(bool), 4)

    def begin(self, draws: State) -> State:
        one = draws["sticky"]
        nothing = torch.zeros(len(one), SIZE, SIZE, dtype=torch.uint8, device=one.device)
        return {
            "x": whole(one, 5),
            "way": whole(one, -1),
            "reload": whole(one),
            "move": whole(one, SLOWEST),
            "fire": whole(one, ALIENS_RELOAD),
            "interval": whole(one, SLOWEST),
            "aliens": nothing | _wave(one),
            "count": whole(one, WAVE),
            "shots": nothing,
            "bombs": nothing.clone(),
            "last_action": whole(one),
        }

    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        action = self.taken(state, action, draws)
        x = moved(state["x"], action, back=1, forth=2)
        fired = (action == 3) & (state["reload"] == 0)
        # a shot starts in the cannon's row and moves at once: what comes up into row 8 is what was fired
        above = F.pad(state["shots"].flatten(1)[:, SIZE : LAST * SIZE], (0, 2 * SIZE))
        shots = above.scatter(1, _below(x, LAST - 1), fired.to(torch.uint8).unsqueeze(1)).view(-1, SIZE, SIZE)
        bombs = F.pad(state["bombs"][:, :LAST], (0, 0, 1, 0))
        aliens, way, moves, landed = _march(state)
        hit = (bombs | state["aliens"] | aliens).flatten(1).gather(1, _below(x, LAST)).squeeze(1) != 0
        fires = state["fire"] == 0
        killed = aliens & shots
        kills = killed.sum((1, 2), dtype=torch.int32)
        cleared = kills == state["count"]
        quicker = cleared & (state["interval"] > FASTEST) & self.ramping
        after = {
            "x": x,
            "way": way,
            "reload": (torch.where(fired, RELOAD, state["reload"]) - 1).clamp(min=0),
            "move": torch.where(moves, torch.minimum(state["count"], state["interval"]), state["move"]) - 1,
            "fire": torch.where(fires, ALIENS_RELOAD, state["fire"]) - 1,
            "interval": torch.where(quicker, state["interval"] - 1, state["interval"]),
            "aliens": (aliens ^ killed) | (cleared.view(-1, 1, 1) & _wave(x)),
            "count": torch.where(cleared, WAVE, state["count"] - kills),
            "shots": shots ^ killed,
            "bombs": bombs | (_gunner(aliens, x) & fires.view(-1, 1, 1)),
            "last_action": action,
        }
        return after, kills.float(), hit | landed

    def observe(self, state: State) -> Tensor:
        aliens = state["aliens"]
        cannon = torch.zeros_like(aliens).flatten(1).scatter(1, _below(state["x"], LAST), 1).view_as(aliens)
        to_left = aliens * (state["way"] < 0).view(-1, 1, 1)
        planes = [cannon, aliens, to_left, aliens ^ to_left, state["shots"], state["bombs"]]
        return torch.stack(planes, 1).permute(0, 2, 3, 1).contiguous().view(torch.bool)


def _below(x: Tensor, row: int) -> Tensor:
    """[E, 1]: the number of the cell in column x [E] of a row."""
    return (x + row * SIZE).unsqueeze(1)


def _any(row: Tensor) -> Tensor:
    """Whether there is a 1 in the row [E, 10] of a map; by a sum, as torch 2.13 compiles amax of such bytes wrongly."""
    return row.sum(1) != 0


def _wave(like: Tensor) -> Tensor:
    """[10, 10] bool: where a new wave stands, rows 0 … 3 and columns 2 … 7, on the device of `like`."""
    line = torch.arange(SIZE, device=like.device)
    return (line < 4).unsqueeze(1) & (line >= 2) & (line < 8)


def _march(state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The aliens [E, 10, 10] after their move, their way, whether they moved and whether that was out at the bottom."""
    aliens, way, moves = state["aliens"], state["way"], state["move"] == 0
    turn = _any(torch.where((way < 0).unsqueeze(1), aliens[:, :, 0], aliens[:, :, LAST])) & moves
    # a move is so many cells on, as nobody goes over an edge aside; out at the bottom they come back at the top, as
    # the last picture of the episode shows
    cells = torch.where(turn, SIZE, way) * moves
    ring = torch.cat([aliens[:, LAST:], aliens, aliens[:, :1]], 1).flatten(1)
    line = torch.arange(SIZE, SIZE + CELLS, device=way.device)
    new = ring.gather(1, line - cells.unsqueeze(1)).view_as(aliens)
    return new, torch.where(turn, -way, way), moves, turn & _any(aliens[:, LAST])


def _gunner(aliens: Tensor, x: Tensor) -> Tensor:
    """[E, 10, 10] bool: who fires, the lowest alien of the column nearest to x [E], of two columns the left one."""
    line = torch.arange(SIZE, device=x.device)
    away = line - x.unsqueeze(1)
    column = (2 * away.abs() + (away > 0)) * SIZE
    rank = (column.unsqueeze(1) + (LAST - line).unsqueeze(1)).flatten(1)  # [E, 100], no two alike
    first = torch.where(aliens.flatten(1) != 0, rank, 2 * CELLS).argmin(1, keepdim=True)
    return (torch.arange(CELLS, device=x.device) == first).view_as(aliens)
