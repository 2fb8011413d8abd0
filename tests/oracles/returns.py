"""Returns by brute force, one transition at a time, from whole trajectories."""


def n_step(rewards, terminated, truncated, start, n, gamma):
    """(return, discount, k) of the window that begins at `start`, stopping at the first end."""
    total, power = 0.0, 1.0
    for k in range(n):
        total += power * rewards[start + k]
        power *= gamma
        if terminated[start + k]:
            return total, 0.0, k + 1
        if truncated[start + k]:
            return total, power, k + 1
    return total, power, n


def lambda_return(rewards, discounts, done, values_next, start, lambda_):
    """G^λ as the weighted sum of all n-step returns, (1−λ) Σ λ^{n−1} G^(n), the rest on the longest."""
    last = start
    while last < len(rewards) - 1 and not done[last]:
        last += 1
    total, weight = 0.0, 1.0
    for end in range(start, last + 1):
        g = values_next[end]
        for i in range(end, start - 1, -1):
            g = rewards[i] + discounts[i] * g
        share = weight if end == last else weight * (1 - lambda_)
        total += share * g
        weight *= lambda_
    return total
