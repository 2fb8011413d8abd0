"""Freeway of MinAtar: a chicken crosses eight lanes of cars."""

import numpy as np
import torch
from torch import Tensor

from dqn.envs.tensor.minatar_board import SIZE, Game, Outcome, State, cell, moved, picture, whole
from dqn.types import Spec

LANES = 8  # rows 1 … 8
COLUMN, START = 4, SIZE - 1  # the chicken's
PACE = 3  # steps from one step of the chicken to the next
TIME = 2500
CHICKEN, CAR, SPEED = 0, 1, 1  # a car with a pace of s steps has its trail in channel SPEED + s


class Freeway(Game):
    """+1 for reaching the top, whence, as when hit by a car, the chicken is back at the bottom; ends after 2501 steps.

    Actions: none, up, down. Channels: chicken, car, and a trail for each pace from 1 to 5 steps a cell. Paces and
    directions are drawn anew when the top is reached, the cars stay where they are. There is no ramp.
    State: `y`, `wait` (steps until the chicken may move), `time`, `last_action` [E]; for each lane `car_x`, `car_wait`,
    `car_pace` [E, 8], negative to the left. Young & Tian (2019).
    """

    spec = Spec((SIZE, SIZE, 7), np.dtype(bool), 3)

    def draw(self, num_envs: int, generator: torch.Generator, device: torch.device | str) -> State:
        """U[0, 1) for the sticky action [E] and the directions [E, 8], paces of 1 … 5 steps [E, 8]."""
        shape = num_envs, LANES
        pace = torch.randint(1, 6, shape, generator=generator, device=device)
        right = torch.rand(shape, generator=generator, device=device)
        return {**super().draw(num_envs, generator, device), "pace": pace, "right": right}

    def begin(self, draws: State) -> State:
        one = draws["sticky"]
        return {
            "y": whole(one, START),
            "wait": whole(one, PACE),
            "time": whole(one),
            "car_x": whole(draws["pace"]),
            "car_wait": draws["pace"].clone(),
            "car_pace": _signed(draws),
            "last_action": whole(one),
        }

    def advance(self, state: State, action: Tensor, draws: State) -> Outcome:
        action = self.taken(state, action, draws)
        step = torch.where(state["wait"] == 0, action, 0)
        y = moved(state["y"], step, back=1, forth=2)
        won = y == 0
        y = torch.where(won, START, y)
        anew = won.unsqueeze(1)
        pace = torch.where(anew, _signed(draws), state["car_pace"])
        wait = torch.where(anew, draws["pace"], state["car_wait"])
        moves = wait == 0
        x = state["car_x"]
        new_x = (x + pace.sign() * moves) % SIZE
        in_lane = torch.arange(1, LANES + 1, device=y.device) == y.unsqueeze(1)
        hit = (in_lane & ((x == COLUMN) | (new_x == COLUMN))).any(1)  # before its move or after
        time = state["time"] + 1
        after = {
            "y": torch.where(hit, START, y),
            "wait": (torch.where(step != 0, PACE, state["wait"]) - 1).clamp(min=0),
            "time": time,
            "car_x": new_x,
            "car_wait": torch.where(moves, pace.abs(), wait - 1),
            "car_pace": pace,
            "last_action": action,
        }
        return after, won.float(), time > TIME

    def observe(self, state: State) -> Tensor:
        x, pace = state["car_x"], state["car_pace"]
        lane = torch.arange(1, LANES + 1, device=x.device)
        chicken = state["y"] * SIZE * 7 + COLUMN * 7 + CHICKEN
        car = cell(x, lane) * 7 + CAR
        trail = cell((x - pace.sign()) % SIZE, lane) * 7 + SPEED + pace.abs()
        return picture(torch.cat([chicken.unsqueeze(1), car, trail], 1), 7)


def _signed(draws: State) -> Tensor:
    """The paces [E, 8], negative for cars that drive to the left."""
    return torch.where(draws["right"] < 1 / 2, -draws["pace"], draws["pace"])
