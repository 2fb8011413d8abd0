"""The Q-table as a dictionary, as in a first lecture."""

from collections import defaultdict


def q_learning(transitions, actions, lr, gamma):
    """Q after one pass over (s, a, r, terminated, s′), updating after each."""
    q = defaultdict(float)
    for s, a, r, terminated, s_next in transitions:
        best = 0.0 if terminated else max(q[s_next, b] for b in range(actions))
        q[s, a] = q[s, a] + lr * (r + gamma * best - q[s, a])
    return q


def value_iteration(successor, probability, reward, gamma, sweeps=2000):
    """Q* by loops over states, actions and successors (lists of lists)."""
    states, actions = len(reward), len(reward[0])
    q = [[0.0] * actions for _ in range(states)]
    for _ in range(sweeps):
        q = [
            [
                reward[s][a]
                + gamma * sum(p * max(q[s2]) for p, s2 in zip(probability[s][a], successor[s][a], strict=True))
                for a in range(actions)
            ]
            for s in range(states)
        ]
    return q
