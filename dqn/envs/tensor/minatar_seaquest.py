"""Seaquest of MinAtar: a submarine among fish and enemy submarines, with divers to save and oxygen to spend."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dqn.envs.tensor.minatar_board import SIZE, Game, Outcome, State, cell, inside, moved, picture, whole
from dqn.envs.tensor.minatar_seaquest_enemies import ENEMIES, entrance, fly, nobody, shoot, spawn, swim
from dqn.types import Spec

DEEPEST = 8  # the player's lowest row
OXYGEN, PLACES = 200, 6  # a full tank; divers that fit on board
SPAWN, LEVELS = 20, 19  # steps between two enemies at level 0; at the last level it is 1
SLOWEST, FASTEST = 5, 2  # an enemy's pace: it rests for so many steps before it moves
DIVER_SPAWN, DIVER_PERIOD = 30, 6  # steps between two divers, and between a diver's moves
RELOAD = 5  # steps between two shots
FRONT, BACK, SHOT, TRAIL, BOMB, FISH, SUB, AIR, ABOARD, DIVER = range(10)


class Seaquest(Game):
    """+1 for each enemy shot; the end when an enemy or its bomb hits, at surfacing with no diver, or without oxygen.

    Actions: none, left, up, right, down, fire. Channels: front and back of the player, its shots, trail (where
    something comes from), bombs, fish, enemy submarines, gauges of oxygen and of divers on board, divers. Surfacing
    costs a diver and fills the tank; with 6 on board it is worth ⌊oxygen/20⌋ and leaves -1, as in minatar 1.0.15: the
    next diver only makes it 0, and below 0 surfacing is free. With ramping each surfacing is a level ℓ, up to 19: an
    enemy comes every 20 - ℓ steps at pace max(2, 5 - ⌊ℓ/2⌋), fish twice as often as submarines.
    State: `x`, `y`, `oxygen`, `aboard`, `reload`, `spawn`, `diver_spawn` (steps until), `level`, `last_action` [E];
    `faces_right`, `surfaced` [E] bool; `shots`, `divers` [E, 3, 2]: x, y, v (±1, 0: not there), the newer one first;
    the enemies are in minatar_seaquest_enemies. Young & Tian (2019).
    """

    spec = Spec((SIZE, SIZE, 10), np.dtype(bool), 6)
    chances = ("sticky", "enemy_right", "enemy_sub", "enemy_row", "diver_right", "diver_row")

    def begin(self, draws: State) -> State:
        one = draws["sticky"]
        pair = one.view(-1, 1, 1).expand(-1, 3, 2)
        return {
            "x": whole(one, 5),
            "y": whole(one),
            "faces_right": torch.zeros_like(one, dtype=torch.bool),
            "surfaced": torch.ones_like(one, dtype=torch.bool),
            "oxygen": whole(one, OXYGEN),
            "aboard": whole(one),
            "reload": whole(one),
            "spawn": whole(one, SPAWN),
            "diver_spawn": whole(one, DIVER_SPAWN),
            "level": whole(one),
            "last_action": whole(one),
            "shots": whole(pair),
            "divers": whole(pair),
            **nobody(one),
        }

    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        action = self.taken(state, action, draws)
        due = state["spawn"] == 0
        pace = (SLOWEST - state["level"] // 2).clamp(min=FASTEST)
        player, shots = _steer(state, action)
        x, y = player["x"].unsqueeze(1), player["y"].unsqueeze(1)
        enemies, shots, kills = shoot(spawn(state, due, pace, draws), shots)
        waters, saved = _dive(state, x, y, draws)
        enemies, shots, more, met = swim(enemies, shots, pace, x, y)
        enemies, hit = fly(enemies, x, y)
        air, reward, over = _breathe(state, player["y"], state["aboard"] + saved, self.ramping)
        timer = torch.where(due, SPAWN - state["level"], state["spawn"]) - 1
        after = {**enemies, **player, **waters, **air, "shots": shots, "spawn": timer, "last_action": action}
        return after, (kills + more + reward).float(), met | hit | over

    def observe(self, state: State) -> Tensor:
        # enemies, divers, bombs, shots: [E, 64] each
        x, y, v = (
            torch.cat([state[f"enemy_{name}"], state["divers"][:, i], state[f"bomb_{name}"], state["shots"][:, i]], 1)
            for i, name in enumerate("xyv")
        )
        channel = F.pad(FISH + state["enemy_sub"].long(), (0, 2), value=DIVER)
        channel = F.pad(F.pad(channel, (0, ENEMIES), value=BOMB), (0, 2), value=SHOT)
        front = (cell(state["x"], state["y"]) * 10 + FRONT).unsqueeze(1)
        back = front + torch.where(state["faces_right"], -10, 10).unsqueeze(1) + (BACK - FRONT)
        there = v != 0
        lit = torch.where(there, torch.add(channel, cell(x, y), alpha=10), front)
        x, y, v, there = (part[:, : ENEMIES + 2] for part in (x, y, v, there))  # what has a trail
        trail = torch.where(there & inside(x - v), cell(x - v, y) * 10 + TRAIL, front)
        line = torch.arange(SIZE, device=front.device)
        air = line < (state["oxygen"] // (OXYGEN // SIZE)).unsqueeze(1)
        aboard = (line >= 9 - state["aboard"].unsqueeze(1)) & (line < 9)
        bottom = line * 10 + 9 * SIZE * 10
        gauges = torch.where(torch.cat([air, aboard], 1), torch.cat([bottom + AIR, bottom + ABOARD]), front)
        return picture(torch.cat([front, back, lit, trail, gauges], 1), 10)


def _push(pair: Tensor, due: Tensor, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """[E, 3, 2]: where it is due, a new thing before the last one, in the place of the one before, which is gone."""
    new = torch.stack([torch.stack([x, y, v], 1), pair[:, :, 0]], 2)
    return torch.where(due.view(-1, 1, 1), new, pair)


def _steer(state: State, action: Tensor) -> tuple[State, Tensor]:
    """The player after the action, and the shots: two places are enough, as one flies 9 steps, or fewer."""
    x = moved(state["x"], action, back=1, forth=3)
    y = moved(state["y"], action, back=2, forth=4, high=DEEPEST)
    faces_right = (state["faces_right"] | (action == 3)) & (action != 1)
    fires = (action == 5) & (state["reload"] == 0)
    reload = (torch.where(fires, RELOAD, state["reload"]) - 1).clamp(min=0)
    shots = _push(state["shots"], fires, x, y, torch.where(faces_right, 1, -1))
    return {"x": x, "y": y, "faces_right": faces_right, "reload": reload}, shots


def _dive(state: State, x: Tensor, y: Tensor, draws: State) -> tuple[State, Tensor]:
    """Divers come and move, and are taken where they meet the player, before their move or after, while there is room.

    All move at the same steps, as the time between two is a multiple of that between moves; the one before the last
    has left when a new one comes.
    """
    due = state["diver_spawn"] == 0
    clock = torch.where(due, DIVER_SPAWN, state["diver_spawn"])
    enters, v = entrance(draws["diver_right"] < 1 / 2)
    divers = _push(state["divers"], due, enters, (DEEPEST * draws["diver_row"]).long() + 1, v)
    at, row, v = divers.unbind(1)
    to = at + v * (clock % DIVER_PERIOD == 1).unsqueeze(1)
    met = (v != 0) & (row == y) & ((at == x) | (to == x))
    taken = met & (state["aboard"].unsqueeze(1) + met.cumsum(1) <= PLACES)
    divers = torch.stack([to, row, v * (inside(to) & ~taken)], 1)
    return {"divers": divers, "diver_spawn": clock - 1}, taken.sum(1)


def _breathe(state: State, y: Tensor, aboard: Tensor, ramping: bool) -> tuple[State, Tensor, Tensor]:
    """Oxygen goes down below the surface; who comes up pays with a diver. Gives also the reward and the end."""
    oxygen, under = state["oxygen"], y > 0
    rises = ~under & ~state["surfaced"]
    pays = rises & (aboard != 0)
    full = pays & (aboard == PLACES)
    air = {
        "oxygen": torch.where(pays, OXYGEN, torch.where(under, oxygen - 1, oxygen)),
        "aboard": torch.where(full, 0, aboard) - pays.long(),
        "surfaced": ~under & (state["surfaced"] | pays),
        "level": (state["level"] + (pays & ramping)).clamp(max=LEVELS),
    }
    return air, torch.where(full, oxygen // (OXYGEN // SIZE), 0), (oxygen <= 0) | (rises & ~pays)
