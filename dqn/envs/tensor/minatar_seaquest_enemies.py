"""The enemies of MinAtar's Seaquest: fish and submarines, the submarines' bombs, and how shots kill them.

The original keeps them in lists, whose order is by age and decides who is killed where several share a cell. Here they
are 30 slots in any order: `enemy_x`, `enemy_y`, `enemy_v` (±1, 0: nobody), `enemy_rest` (steps until a move),
`enemy_age` [E, 30], `enemy_sub` [E, 30] bool, and of the slot's bomb `bomb_x`, `bomb_y`, `bomb_v` [E, 30].

Slots are enough: at most one enemy comes a step, which then takes at most 29 steps to cross at the pace of the levels
where as many come; and a bomb, which flies 10 steps at most, is gone before its slot drops one again, 11 steps later,
or a new owner, who must be as old, its first. Ages are all different. Young & Tian (2019).
"""

import torch
from torch import Tensor

from dqn.envs.tensor.minatar_board import SIZE, State, cell, inside

ENEMIES = 30
OLDEST = 100  # more than any age: at the slowest pace the board is crossed in 59 steps
RELOAD = 11  # steps between two bombs


def entrance(right: Tensor) -> tuple[Tensor, Tensor]:
    """x and v of what comes in and goes right, or left."""
    return torch.where(right, 0, SIZE - 1), torch.where(right, 1, -1)


def nobody(like: Tensor) -> State:
    """Empty slots for the environments of `like` [E]."""
    slots = torch.zeros(len(like), ENEMIES, dtype=torch.int64, device=like.device)
    names = ("enemy_x", "enemy_y", "enemy_v", "enemy_rest", "enemy_age", "bomb_x", "bomb_y", "bomb_v")
    return {**{name: slots.clone() for name in names}, "enemy_sub": slots.bool()}


def spawn(state: State, due: Tensor, pace: Tensor, draws: State) -> State:
    """Where it is `due` [E] one more enemy, unless somebody in its row comes towards it."""
    x, v = entrance(draws["enemy_right"] < 1 / 2)
    y = ((SIZE - 2) * draws["enemy_row"]).long() + 1
    rows, ways = state["enemy_y"], state["enemy_v"]
    against = ((rows == y.unsqueeze(1)) & (ways == -v.unsqueeze(1))).any(1)
    empty = ways == 0
    place = torch.arange(ENEMIES, device=x.device) == empty.long().argmax(1, keepdim=True)
    new = place & empty & (due & ~against).unsqueeze(1)
    sub = draws["enemy_sub"] < 1 / 3
    arrival = {"enemy_x": x, "enemy_y": y, "enemy_v": v, "enemy_rest": pace, "enemy_sub": sub}
    arrival = {name: torch.where(new, value.unsqueeze(1), state[name]) for name, value in arrival.items()}
    return {**state, **arrival, "enemy_age": torch.where(new, 0, state["enemy_age"])}


def shoot(state: State, shots: Tensor) -> tuple[State, Tensor, Tensor]:
    """Shots [E, 3, 2] fly one cell, the newest first, and kill: fish before submarines, the oldest first."""
    x, y, v = shots.unbind(1)
    x = x + v
    flies = (v != 0) & inside(x)
    age, ways = state["enemy_age"], state["enemy_v"]
    score = torch.where(state["enemy_sub"], age, age + OLDEST)
    where = torch.where(flies, cell(x, y), -1)
    killed, spent = _strike((0, 1), where, cell(state["enemy_x"], state["enemy_y"]), ways != 0, score)
    shots = torch.stack([x, y, v * (flies & ~spent)], 1)
    return {**state, "enemy_v": ways * ~killed}, shots, spent.sum(1)


def swim(state: State, shots: Tensor, pace: Tensor, x: Tensor, y: Tensor) -> tuple[State, Tensor, Tensor, Tensor]:
    """Who has rested moves, and may run into a shot: submarines before fish, the youngest first, and the older shot.

    Then submarines drop bombs, even one that was killed just now. Gives also the shots that are left, the kills [E]
    and whether somebody was at the player (x, y) [E, 1] before or after the move.
    """
    at, row, v, rest, age = (state[f"enemy_{name}"] for name in ("x", "y", "v", "rest", "age"))
    there, moves = v != 0, rest == 0
    to = at + v * moves
    stays, level = there & inside(to), row == y
    arrived = stays & level & (to == x)
    met = (there & level & (at == x)) | arrived
    where = torch.where(shots[:, 2] != 0, cell(shots[:, 0], shots[:, 1]), -1)
    score = torch.where(state["enemy_sub"], 2 * OLDEST, OLDEST) - age
    # no shot is left where somebody has not moved
    killed, spent = _strike((1, 0), where, cell(to, row), stays & ~arrived, score)
    drops = stays & state["enemy_sub"] & (age % RELOAD == RELOAD - 1)
    after = {
        "enemy_x": to,
        "enemy_v": v * (stays & ~killed),
        "enemy_rest": torch.where(moves, pace.unsqueeze(1), rest - 1),
        "enemy_age": age + 1,
        "bomb_x": torch.where(drops, to, state["bomb_x"]),
        "bomb_y": torch.where(drops, row, state["bomb_y"]),
        "bomb_v": torch.where(drops, v, state["bomb_v"]),
    }
    shots = torch.stack([shots[:, 0], shots[:, 1], shots[:, 2] * ~spent], 1)
    return {**state, **after}, shots, spent.sum(1), met.any(1)


def fly(state: State, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
    """Bombs fly one cell; also whether one was at the player (x, y) [E, 1] before or after."""
    at, v = state["bomb_x"], state["bomb_v"]
    to = at + v
    hit = (v != 0) & (state["bomb_y"] == y) & ((at == x) | (to == x))
    return {**state, "bomb_x": to, "bomb_v": v * inside(to)}, hit.any(1)


def _strike(order: tuple[int, int], shots: Tensor, cells: Tensor, may: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Each shot in its `order` kills one enemy of its cell, that with the highest score ≥ 0 (no two alike), if any.

    Cells of the shots [E, 2] and the enemies [E, 30], who `may` be killed → killed [E, 30], spent [E, 2] bool.
    """
    left, spent = may, {}
    for i in order:
        struck = left & (cells == shots[:, i : i + 1])
        best = torch.where(struck, score, -1).amax(1, keepdim=True)
        left = left ^ (struck & (score == best))
        spent[i] = best >= 0
    return may ^ left, torch.cat([spent[0], spent[1]], 1)
