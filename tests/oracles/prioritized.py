"""Prioritised replay with lists and loops: O(N) for everything."""


class Priorities:
    """A list of priorities; the last of those given for one item in one call counts."""

    def __init__(self, size):
        self.items = [0.0] * size

    def set(self, where, values):
        for i, value in zip(where, values, strict=True):
            self.items[i] = value

    def find(self, mass):
        upto = 0.0
        for i, p in enumerate(self.items):
            upto += p
            if mass < upto:
                return i
        return max(i for i, p in enumerate(self.items) if p > 0)


def priority(td_errors, valid, max_mix, floor):
    """max_mix · max |δ| + (1 − max_mix) · mean |δ| + floor over the valid steps of one sequence."""
    sizes = [abs(d) for d, v in zip(td_errors, valid, strict=True) if v]
    return max_mix * max(sizes) + (1 - max_mix) * sum(sizes) / len(sizes) + floor


def probabilities(priorities, exponent):
    """P(i) over all items; an item without a priority (None) has none."""
    powers = [0.0 if p is None else p**exponent for p in priorities]
    return [p / sum(powers) for p in powers]


def weights(probabilities, drawn, exponent):
    """(N P(i))^−exponent over the largest of the batch; N counts the items that can be drawn."""
    n = sum(p > 0 for p in probabilities)
    raw = [(n * probabilities[i]) ** -exponent for i in drawn]
    return [w / max(raw) for w in raw]


class Following:
    """Which starts are in the memory, with what priority^exponent: a dictionary by (row, environment)."""

    def __init__(self):
        self.powers, self.largest = {}, 1.0

    def follow(self, live):
        self.powers = {key: self.powers.get(key, self.largest) for key in live}

    def report(self, keys, powers):
        self.powers.update(zip(keys, powers, strict=True))
        self.largest = max(self.largest, *powers)

    def leaves(self, rows, num_envs):
        leaves = [0.0] * (rows * num_envs)
        for (row, env), power in self.powers.items():
            assert leaves[row % rows * num_envs + env] == 0.0, "two live starts in one slot"
            leaves[row % rows * num_envs + env] = power
        return leaves
