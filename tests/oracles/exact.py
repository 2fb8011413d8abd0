"""The values every backup ends at on a small world, by dynamic programming over its tables."""

import numpy as np

from oracles.backups import policy, soft_value


def fixed_point(world, gamma, rule="q_learning", sweeps=400, **numbers):
    """Q [S, A] where q = backup(q); NaN where nothing is decided. `world` has successor, probability, reward, final."""
    states, actions = world.reward.shape
    legal = [[a for a in range(actions) if world.legal is None or world.legal[s, a]] for s in range(states)]
    q = np.zeros((states, actions))
    for _ in range(sweeps):
        value = np.zeros(states)
        for s in range(states):
            if world.final[s]:
                continue
            allowed = [q[s, a] for a in legal[s]]
            if rule == "q_learning":
                value[s] = max(allowed)
            elif rule == "expected_sarsa":
                value[s] = (1 - numbers["epsilon"]) * max(allowed) + numbers["epsilon"] * np.mean(allowed)
            else:
                value[s] = soft_value(q[s], legal[s], numbers["temperature"])
        new = world.reward + gamma * (world.probability * value[world.successor]).sum(-1)
        if rule == "munchausen":
            for s in range(states):
                pi = policy(q[s], legal[s], numbers["temperature"])
                for a in legal[s]:
                    bonus = numbers["temperature"] * np.log(max(pi[a], 1e-300))
                    new[s, a] += numbers["scale"] * max(bonus, numbers["floor"])
        q = new
    q[world.final] = np.nan
    for s in range(states):
        q[s, [a for a in range(actions) if a not in legal[s]]] = np.nan
    return q
