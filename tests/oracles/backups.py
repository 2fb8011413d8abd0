"""Targets of every backup for one transition, in plain loops over actions."""

import math


def policy(q, legal, temperature):
    """softmax(q/τ) over the legal actions, as a list."""
    top = max(q[a] for a in legal)
    power = [math.exp((q[a] - top) / temperature) if a in legal else 0.0 for a in range(len(q))]
    return [p / sum(power) for p in power]


def soft_value(q, legal, temperature):
    top = max(q[a] for a in legal)
    return top + temperature * math.log(sum(math.exp((q[a] - top) / temperature) for a in legal))


def target(rule, reward, discount, q_next, legal_next, q_next_online, q_here, legal_here, action, numbers):
    """y of one transition; `numbers` are the rule's own."""
    if rule == "q_learning":
        return reward + discount * max(q_next[a] for a in legal_next)
    if rule == "double_q":
        return reward + discount * q_next[max(legal_next, key=lambda a: q_next_online[a])]
    if rule == "expected_sarsa":
        best = max(legal_next, key=lambda a: q_next[a])
        mean = sum(q_next[a] for a in legal_next) / len(legal_next)
        return reward + discount * ((1 - numbers["epsilon"]) * q_next[best] + numbers["epsilon"] * mean)
    value = soft_value(q_next, legal_next, numbers["temperature"])
    if rule == "soft":
        return reward + discount * value
    log_pi = numbers["temperature"] * math.log(max(policy(q_here, legal_here, numbers["temperature"])[action], 1e-300))
    return reward + numbers["scale"] * max(log_pi, numbers["floor"]) + discount * value
