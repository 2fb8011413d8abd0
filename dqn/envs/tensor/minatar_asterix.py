"""Asterix of MinAtar: gold to be picked up, enemies to be avoided, one or none in each of eight rows."""

import numpy as np
import torch
from torch import Tensor

from dqn.envs.tensor.minatar_board import SIZE, Game, Outcome, State, cell, inside, moved, picture, whole
from dqn.types import Spec

ROWS = 8  # rows 1 … 8
SPAWN, MOVE = 10, 5  # steps between two arrivals and two moves, at level 0
RAMP, LEVELS = 102, 9  # a level takes a countdown from 100 below 0 and one step more; at the last, all is 1
PLAYER, ENEMY, TRAIL, GOLD = range(4)


class Asterix(Game):
    """+1 for touching gold, the end when an enemy is touched; both cross the board from a random side.

    Actions: none, left, up, right, down. Channels: player, enemy, trail (where something comes from), gold. At level
    ℓ = min(9, ⌊time/102⌋) something arrives every 10 - ℓ steps, in an empty row if there is one, gold one time in
    three, and all move every 5 - ⌊ℓ/2⌋ steps. Without ramping ℓ = 0.
    State: `x`, `y`, `spawn`, `move` (steps until), `time`, `last_action` [E]; for each row `item_x`, `item_v` (±1, 0:
    nothing) [E, 8] and `item_gold` [E, 8] bool. Young & Tian (2019).
    """

    spec = Spec((SIZE, SIZE, 4), np.dtype(bool), 5)
    chances = ("sticky", "right", "gold", "row")

    def begin(self, draws: State) -> State:
        one = draws["sticky"]
        rows = one.unsqueeze(1).expand(-1, ROWS)
        return {
            "x": whole(one, 5),
            "y": whole(one, 5),
            "item_x": whole(rows),
            "item_v": whole(rows),
            "item_gold": torch.zeros_like(rows, dtype=torch.bool),
            "spawn": whole(one, SPAWN),
            "move": whole(one, MOVE),
            "time": whole(one),
            "last_action": whole(one),
        }

    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        action = self.taken(state, action, draws)
        spawns, moves = state["spawn"] == 0, state["move"] == 0
        level = (state["time"] // RAMP).clamp(max=LEVELS) if self.ramping else whole(action)
        x, v, gold = _arrive(state, spawns, draws)
        player = moved(state["x"], action, back=1, forth=3).unsqueeze(1)
        y = moved(state["y"], action, back=2, forth=4, low=1, high=ROWS)
        new_x = x + v * moves.unsqueeze(1)
        # a row holds one item: only the one in the player's row can be touched, before its move or after
        here = (v != 0) & (_rows(x) == y.unsqueeze(1))
        touched = here & ((x == player) | (new_x == player))
        taken = touched & gold
        after = {
            "x": player.squeeze(1),
            "y": y,
            "item_x": new_x,
            "item_v": v * (inside(new_x) & ~taken),
            "item_gold": gold,
            "spawn": torch.where(spawns, SPAWN - level, state["spawn"]) - 1,
            "move": torch.where(moves, MOVE - level // 2, state["move"]) - 1,
            "time": state["time"] + 1,
            "last_action": action,
        }
        return after, taken.any(1).float(), (touched & ~gold).any(1)

    def observe(self, state: State) -> Tensor:
        x, v = state["item_x"], state["item_v"]
        player = (cell(state["x"], state["y"]) * 4 + PLAYER).unsqueeze(1)
        there, rows, behind = v != 0, _rows(x), x - v
        item = torch.add(torch.where(state["item_gold"], GOLD, ENEMY), cell(x, rows), alpha=4)
        lit = torch.where(there, item, player)
        trail = torch.where(there & inside(behind), cell(behind, rows) * 4 + TRAIL, player)
        return picture(torch.cat([player, lit, trail], 1), 4)


def _rows(like: Tensor) -> Tensor:
    """[8]: the rows of the items, on the device of `like`."""
    return torch.arange(1, ROWS + 1, device=like.device)


def _arrive(state: State, spawns: Tensor, draws: State) -> tuple[Tensor, Tensor, Tensor]:
    """x, v, gold [E, 8] with an item more where one arrives, in one of the empty rows."""
    empty = state["item_v"] == 0
    count = empty.cumsum(1)
    free = count[:, -1:]
    # the k-th of them; 1 + ⌊u · free⌋ can be rounded up to one too many
    chosen = torch.minimum((draws["row"].unsqueeze(1) * free).long() + 1, free)
    new = empty & (count == chosen) & spawns.unsqueeze(1)
    right = (draws["right"] < 1 / 2).unsqueeze(1)
    gold = (draws["gold"] < 1 / 3).unsqueeze(1)
    x = torch.where(new, torch.where(right, 0, SIZE - 1), state["item_x"])
    v = torch.where(new, torch.where(right, 1, -1), state["item_v"])
    return x, v, torch.where(new, gold, state["item_gold"])
