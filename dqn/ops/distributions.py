"""Distributions of the return: their means, their projections onto what a head can say, the distance of quantiles.

A distribution is atoms [..., N] and their probabilities [..., N], or None where all atoms weigh 1/N.
"""

import torch
from torch import Tensor


def expectation(atoms: Tensor, probs: Tensor | None) -> Tensor:
    """E[X] = Σ_j p_j x_j. atoms [..., N], probs [..., N] or None → [...]."""
    _door("expectation", atoms, probs)
    if probs is not None:
        return (atoms * probs).sum(-1)
    return atoms.squeeze(-1) if atoms.shape[-1] == 1 else atoms.mean(-1)


def project(atoms: Tensor, probs: Tensor | None, support: Tensor) -> Tensor:
    """The nearest distribution on an evenly spaced support: each atom's mass is split between its two neighbours,
    m_i = Σ_j p_j · max(0, 1 − |clip(x_j, z_1, z_N) − z_i| / Δz).

    atoms [..., N′], probs [..., N′] or None, support [N] ascending and evenly spaced → m [..., N] of mass 1 and, for
    atoms inside the support, of equal mean. The form with a triangular kernel needs no case for an atom that lies on
    a grid point, where the published loop loses its mass. Errors: ValueError for shapes that do not fit.
    Bellemare, Dabney & Munos (2017), eq. 7 and alg. 1.
    """
    _door("project", atoms, probs)
    if support.ndim != 1 or len(support) < 2:
        raise ValueError(f"project wants a support [N] of two points or more, got {tuple(support.shape)}")
    last = len(support) - 1
    width = (support[-1] - support[0]) / last
    # measured in grid steps: there neighbours are exact integers and rounding cannot move mass
    place = ((atoms - support[0]) / width).clamp(0, last).unsqueeze(-1)  # [..., N′, 1]
    grid = torch.arange(last + 1, device=support.device, dtype=place.dtype)
    return _average((1 - (place - grid).abs()).clamp(min=0), probs)


def hl_gauss_target(atoms: Tensor, probs: Tensor | None, edges: Tensor, sigma: float) -> Tensor:
    """The histogram of a Gaussian around each atom,
    m_i = Σ_j p_j · [Φ((e_{i+1} − x_j)/σ) − Φ((e_i − x_j)/σ)] / [Φ((e_N − x_j)/σ) − Φ((e_0 − x_j)/σ)].

    atoms [..., N′], probs [..., N′] or None, edges [N+1] ascending, σ > 0 in the atoms' unit → m [..., N] of mass 1.
    Atoms beyond the edges are clipped to them first, or the quotient would be 0/0.
    Errors: ValueError for shapes that do not fit. Imani & White (2018), §3; Farebrother et al. (2024), §3.1.
    """
    _door("hl_gauss_target", atoms, probs)
    if edges.ndim != 1 or len(edges) < 2:
        raise ValueError(f"hl_gauss_target wants edges [N+1] of two points or more, got {tuple(edges.shape)}")
    centre = torch.minimum(torch.maximum(atoms, edges[0]), edges[-1]).unsqueeze(-1)  # [..., N′, 1]
    below = torch.special.erf((edges - centre) / (sigma * 2**0.5))  # [..., N′, N+1]
    mass = (below[..., 1:] - below[..., :-1]).clamp(min=0)
    return _average(mass / mass.sum(-1, keepdim=True), probs)


def quantile_huber(quantiles: Tensor, tau: Tensor, targets: Tensor, probs: Tensor | None, kappa: float) -> Tensor:
    """The quantile regression loss, smooth at zero, with u_ij = y_j − θ_i:
    L = Σ_i Σ_j p_j · |τ_i − 1{u_ij < 0}| · H_κ(u_ij)/κ,  H_κ(u) = ½u² where |u| ≤ κ, κ(|u| − ½κ) beyond.

    κ = 0 is its limit, plain quantile regression, |τ_i − 1{u < 0}| · |u|. quantiles, tau [..., N], targets [..., N′],
    probs [..., N′] or None → L [...]. Errors: ValueError for shapes that do not fit. Dabney et al. (2018a), eq. 10.
    """
    _door("quantile_huber", targets, probs)
    if quantiles.shape != tau.shape or quantiles.shape[:-1] != targets.shape[:-1]:
        raise ValueError(
            f"quantile_huber wants quantiles and tau [..., N] and targets [..., N'], got {tuple(quantiles.shape)}, "
            f"{tuple(tau.shape)} and {tuple(targets.shape)}"
        )
    u = targets.unsqueeze(-1) - quantiles.unsqueeze(-2)  # [..., N′, N]
    size = u.abs()
    if kappa > 0:
        size = torch.where(size <= kappa, 0.5 / kappa * u * u, size - 0.5 * kappa)
    slope = (tau.unsqueeze(-2) - (u.detach() < 0).to(u.dtype)).abs()
    return _average(slope * size, probs).sum(-1)


def _average(x: Tensor, probs: Tensor | None) -> Tensor:
    """Over the atoms: x [..., N′, N] → [..., N]."""
    return x.mean(-2) if probs is None else (x * probs.unsqueeze(-1)).sum(-2)


def _door(name: str, atoms: Tensor, probs: Tensor | None) -> None:
    if atoms.ndim < 1 or (probs is not None and probs.shape != atoms.shape):
        shape = None if probs is None else tuple(probs.shape)
        raise ValueError(f"{name} wants atoms [..., N] and probs of equal shape, got {tuple(atoms.shape)} and {shape}")
