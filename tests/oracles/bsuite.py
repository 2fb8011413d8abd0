"""Catch and DeepSea, one environment each, from their descriptions in Osband et al. (2020), "Behaviour suite"."""

import numpy as np


class Catch:
    """A ball falls down a board of characters and is caught or missed in the last row."""

    def __init__(self, ball, rows=10, columns=5):
        self.rows, self.columns = rows, columns
        self.ball = [0, ball]
        self.paddle = [rows - 1, columns // 2]

    def see(self):
        board = [[0.0] * self.columns for _ in range(self.rows)]
        for row, column in (self.ball, self.paddle):
            board[row][column] = 1.0
        return board

    def step(self, action):
        """(reward, terminated)"""
        if action == 0 and self.paddle[1] > 0:
            self.paddle[1] -= 1
        if action == 2 and self.paddle[1] < self.columns - 1:
            self.paddle[1] += 1
        self.ball[0] += 1
        if self.ball[0] < self.rows - 1:
            return 0.0, False
        return (1.0 if self.ball[1] == self.paddle[1] else -1.0), True


class DeepSea:
    """A diver sinks through a grid; the treasure lies to the right of its bottom right cell."""

    def __init__(self, size, seed):
        self.size, self.row, self.column = size, 0, 0
        self.right = np.random.RandomState(seed).binomial(1, 0.5, [size, size]).tolist()

    def see(self):
        grid = [[0.0] * self.size for _ in range(self.size)]
        if self.row < self.size:
            grid[self.row][self.column] = 1.0
        return grid

    def step(self, action):
        """(reward, terminated)"""
        reward = 0.0
        if action == self.right[self.row][self.column]:
            reward -= 0.01 / self.size
            if self.column == self.size - 1:
                reward += 1.0
            else:
                self.column += 1
        elif self.column > 0:
            self.column -= 1
        self.row += 1
        return reward, self.row == self.size
