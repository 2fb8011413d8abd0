"""Breakout of MinAtar: a ball, a paddle and three rows of bricks."""

import numpy as np
import torch
from torch import Tensor

from dqn.envs.tensor.minatar_board import SIZE, Game, Outcome, State, cell, moved, picture, whole
from dqn.types import Spec

FLOOR = SIZE - 1  # the paddle's row
TOP, BOTTOM = SIZE, 4 * SIZE  # the cells from … to of the bricks: rows 1, 2, 3
PADDLE, BALL, TRAIL, BRICK = range(4)


class Breakout(Game):
    """The ball flies along diagonals, off walls, bricks and the paddle; +1 for a brick, the end when it is missed.

    Actions: none, left, right. Channels: paddle, ball, trail (where the ball was), brick. New bricks come when the ball
    is at the paddle and none are left. A brick is broken only when the ball struck none the step before.
    State: `paddle`, `x`, `y`, `dx`, `dy` (±1), `last_x`, `last_y`, `last_action` [E], `struck` [E] bool, `bricks`
    [E, 30] bool. There is no ramp. Young & Tian (2019).
    """

    spec = Spec((SIZE, SIZE, 4), np.dtype(bool), 3)
    chances = ("sticky", "side")

    def begin(self, draws: State) -> State:
        right = whole(draws["side"]) + (draws["side"] >= 1 / 2)
        return {
            "paddle": whole(right, 4),
            "x": 9 * right,
            "y": whole(right, 3),
            "dx": 1 - 2 * right,
            "dy": whole(right, 1),
            "last_x": 9 * right,
            "last_y": whole(right, 3),
            "struck": torch.zeros_like(right, dtype=torch.bool),
            "bricks": torch.ones(len(right), BOTTOM - TOP, dtype=torch.bool, device=right.device),
            "last_action": whole(right),
        }

    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        action = self.taken(state, action, draws)
        paddle = moved(state["paddle"], action, back=1, forth=2)
        x, y, dx, dy, bricks = (state[name] for name in ("x", "y", "dx", "dy", "bricks"))
        ahead_x, ahead_y = x + dx, y + dy
        new_x, new_y = ahead_x.clamp(0, FLOOR), ahead_y.clamp(0, FLOOR)
        there = torch.arange(TOP, BOTTOM, device=x.device) == cell(new_x, new_y).unsqueeze(1)  # [E, 30]
        on_brick = (bricks & there).any(1)
        broken = on_brick & ~state["struck"]
        low = ahead_y >= FLOOR
        corner = low & (new_x == paddle)  # or the middle, where a wall has turned dx already
        returned = broken | corner | (low & (x == paddle))
        emptied = low & ~bricks.any(1)
        after = {
            "paddle": paddle,
            "x": new_x,
            "y": torch.where(returned, y, new_y),
            "dx": torch.where((new_x != ahead_x) | corner, -dx, dx),
            "dy": torch.where((ahead_y < 0) | returned, -dy, dy),
            "last_x": x.clone(),
            "last_y": y.clone(),
            "struck": on_brick,
            "bricks": (bricks & ~(there & broken.unsqueeze(1))) | emptied.unsqueeze(1),
            "last_action": action,
        }
        return after, broken.float(), low & ~returned

    def observe(self, state: State) -> Tensor:
        paddle = (state["paddle"] + FLOOR * SIZE) * 4 + PADDLE
        ball = cell(state["x"], state["y"]) * 4 + BALL
        trail = cell(state["last_x"], state["last_y"]) * 4 + TRAIL
        points = torch.stack([paddle, ball, trail], 1)
        bricks = torch.arange(TOP, BOTTOM, device=points.device) * 4 + BRICK
        return picture(torch.cat([points, torch.where(state["bricks"], bricks, points[:, :1])], 1), 4)
