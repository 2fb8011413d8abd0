"""Guided policies and tied values as loops over states, actions and numbers."""

from math import exp, log


def guided(log_prior, q, legal, temperature):
    """π(a) = π0(a) exp(q(a)/τ) / Z over the legal actions of one state."""
    weights = [exp(p) * exp(v / temperature) if ok else 0.0 for p, v, ok in zip(log_prior, q, legal, strict=True)]
    return [w / sum(weights) for w in weights]


def soft_value(log_prior, q, legal, temperature):
    """τ log Σ_a π0(a) exp(q(a)/τ), π0 over the legal actions alone."""
    mass = sum(exp(p) for p, ok in zip(log_prior, legal, strict=True) if ok)
    total = sum(exp(p) / mass * exp(v / temperature) for p, v, ok in zip(log_prior, q, legal, strict=True) if ok)
    return temperature * log(total)


def tied(value, matrix, embedding, hidden):
    """v + e_aᵀ A h for one state: matrix [N][d][d], embedding [K][d], hidden [d], value [N] → [K][N]."""
    size = range(len(hidden))
    return [
        [value[n] + sum(e[i] * matrix[n][i][j] * hidden[j] for i in size for j in size) for n in range(len(matrix))]
        for e in embedding
    ]
