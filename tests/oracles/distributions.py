"""Slow and obvious: projections, histograms and quantile losses by loops over plain floats."""

import itertools
import math

import numpy as np


def project(atoms, probs, support):
    """Algorithm 1 of Bellemare, Dabney & Munos (2017), with a case for atoms on a grid point, where it loses mass."""
    width = (support[-1] - support[0]) / (len(support) - 1)
    mass = [0.0] * len(support)
    for x, p in zip(atoms, probs, strict=True):
        place = (min(max(x, support[0]), support[-1]) - support[0]) / width
        nearest = round(place)
        if abs(place - nearest) < 1e-9:
            mass[nearest] += p
            continue
        low, high = math.floor(place), math.ceil(place)
        mass[low] += p * (high - place)
        mass[high] += p * (place - low)
    return np.array(mass)


def hl_gauss(atoms, probs, edges, sigma):
    """A Gaussian's mass in every bin, over its mass in all of them."""

    def below(x, mean):
        return 0.5 * (1 + math.erf((x - mean) / (sigma * math.sqrt(2))))

    mass = [0.0] * (len(edges) - 1)
    for x, p in zip(atoms, probs, strict=True):
        mean = min(max(x, edges[0]), edges[-1])
        inside = below(edges[-1], mean) - below(edges[0], mean)
        for i in range(len(mass)):
            mass[i] += p * (below(edges[i + 1], mean) - below(edges[i], mean)) / inside
    return np.array(mass)


def quantile_huber(quantiles, tau, targets, probs, kappa):
    """Equation 10 of Dabney et al. (2018a)."""
    total = 0.0
    for theta, fraction in zip(quantiles, tau, strict=True):
        for y, p in zip(targets, probs, strict=True):
            u = y - theta
            if kappa == 0:
                size = abs(u)
            elif abs(u) <= kappa:
                size = 0.5 * u * u / kappa
            else:
                size = (kappa * (abs(u) - 0.5 * kappa)) / kappa
            total += p * abs(fraction - (1.0 if u < 0 else 0.0)) * size
    return total


def cross_entropy_and_divergence(target, probs):
    """−Σ m log p and Σ m log(m/p)."""
    cross = -sum(m * math.log(p) for m, p in zip(target, probs, strict=True) if m > 0)
    divergence = sum(m * math.log(m / p) for m, p in zip(target, probs, strict=True) if m > 0)
    return cross, divergence


def wasserstein(inverse, borders, cells=2000):
    """Equation 5 of Yang et al. (2019): Σ_i ∫ |F⁻¹(ω) − F⁻¹(τ̂_i)| dω from τ_i to τ_{i+1}, by midpoints."""
    total = 0.0
    for low, high in itertools.pairwise(borders):
        omega = low + (np.arange(cells) + 0.5) * (high - low) / cells
        total += np.abs(inverse(omega) - inverse((low + high) / 2)).mean() * (high - low)
    return total
