"""Quantile heads: the return by its inverse distribution function, z(τ) = F⁻¹(τ), at fixed, sampled or proposed τ.

`Values.z` [..., A, N] holds quantiles, `Values.tau` [..., N] their fractions. `mix` averages quantiles over actions,
z(τ) = Σ_a π(a) h⁻¹(z_a(τ)), as in Munchausen-IQN (Vieillard et al., 2020): the greedy action's distribution where π is
greedy; for a soft π not the mixture of the distributions, though with exactly its mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dqn.networks.heads import AS_IS, Inverse, Output, atoms_of, check_loss, check_mix, chosen_atoms, mixed
from dqn.networks.layers import Embedding, Linear
from dqn.networks.outputs import Single
from dqn.ops.distributions import expectation, quantile_huber
from dqn.types import Values


@dataclass
class Proposed(Values):
    """What FullQuantile's loss needs besides: the fractions it proposed and the quantiles at their borders."""

    probs: Tensor | None = None  # [..., N] τ_{i+1} − τ_i, without gradient
    borders: Tensor | None = None  # [..., N−1] τ_1 … τ_{N−1}, with the fraction layer's gradient
    border_z: Tensor | None = None  # [..., A, N−1] F⁻¹ there, without gradient; None where no gradient is wanted
    entropy: Tensor | None = None  # [...] of the proposed probabilities


class Quantile(nn.Module):
    """QR-DQN: `atoms` quantiles at fixed midpoints τ̂_i = (i + ½)/N, q = mean_i z_i. Dabney et al. (2018a).

    Loss: the quantile Huber loss with `kappa` (0: plain quantile regression).
    Errors: ValueError for fewer than one atom or a negative κ.
    """

    tau: Tensor

    def __init__(self, features: int, num_actions: int, atoms: int = 200, kappa: float = 1.0, output: Output = Single):
        super().__init__()
        _check(kappa, atoms=atoms)
        self.kappa = float(kappa)
        self.register_buffer("tau", _midpoints(atoms), persistent=False)
        self.output = output(features, num_actions, atoms)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        z = self.output(features, mask)  # [..., A, N]
        return Values(z.mean(-1), z, self.tau.expand(*z.shape[:-2], -1))

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """z(τ̂) = Σ_a π(a) h⁻¹(z_a(τ̂)). z [..., A, N], π [..., A] → atoms [..., N] of equal weight."""
        return _mix(values, pi, inverse), None

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """L = Σ_i E_y[ρ_τ̂i(y − z_i(a))], y ~ (atoms, probs) [T, B, N′] → loss, td_error E[y] − q(a) [T, B]."""
        return _loss(values, action, atoms, probs, self.kappa)


class ImplicitQuantile(nn.Module):
    """IQN: quantiles at any fraction, z(τ) = output(φ ⊙ relu(W cos(πiτ) + b)), i < `cosines`; q = mean_τ z(τ).

    In training `samples` fractions are drawn for each element of the leading shape, uniform in [0, 1) by `generator`
    (None: torch's stream); in evaluation they are `midpoints` fixed ones. Errors: ValueError for counts below one, a
    negative κ, features that are state numbers. Dabney et al. (2018b), §3.
    """

    tau: Tensor
    generator: torch.Generator | None = None

    def __init__(
        self,
        features: int,
        num_actions: int,
        samples: int = 64,
        midpoints: int = 32,
        cosines: int = 64,
        kappa: float = 1.0,
        output: Output = Single,
    ):
        super().__init__()
        _check(kappa, samples=samples, midpoints=midpoints, cosines=cosines)
        self.samples, self.kappa = samples, float(kappa)
        self.register_buffer("tau", _midpoints(midpoints), persistent=False)
        self.embedding = Embedding(features, cosines)
        self.output = output(features, num_actions, 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        lead = features.shape[:-1]
        if self.training:
            like = self.tau
            tau = torch.rand((*lead, self.samples), generator=self.generator, device=like.device, dtype=like.dtype)
        else:
            tau = self.tau.expand(*lead, -1)
        z = _at(self.output, self.embedding(features, tau), mask)
        return Values(z.mean(-1), z, tau)

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """z(τ) = Σ_a π(a) h⁻¹(z_a(τ)), all actions at the same τ. z [..., A, N], π [..., A] → atoms [..., N]."""
        return _mix(values, pi, inverse), None

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """L = Σ_i E_y[ρ_τi(y − z(τ_i, a))], y ~ (atoms, probs) [T, B, N′] → loss, td_error E[y] − q(a) [T, B]."""
        return _loss(values, action, atoms, probs, self.kappa)


class FullQuantile(nn.Module):
    """FQF: IQN's network at `atoms` fractions it proposes itself, 0 = τ_0 < τ_1 < … < τ_N = 1, a softmax's sums:
    q = Σ_i (τ_{i+1} − τ_i) z(τ̂_i), τ̂_i = (τ_i + τ_{i+1})/2. Yang et al. (2019), §3.

    The fractions descend the Wasserstein distance between z and its N steps, whose gradient for τ_i is
    2z(τ_i) − z(τ̂_i) − z(τ̂_{i−1}), and not the quantile loss; it reaches the fraction layer alone. They are to be
    learnt slowly: `slow_parameters` names them, `fraction_lr` is a factor on the optimizer's lr. `entropy` rewards
    even fractions. Unlike the paper, targets are weighted by τ_{i+1} − τ_i, the mass each stands for.
    Errors: ValueError for counts below one (atoms: two), negative numbers, features that are state numbers.
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        atoms: int = 32,
        cosines: int = 64,
        kappa: float = 1.0,
        fraction_lr: float = 5e-5,
        entropy: float = 0.0,
        output: Output = Single,
    ):
        super().__init__()
        _check(kappa, cosines=cosines)
        if atoms < 2:
            raise ValueError(f"head.atoms must be at least 2 (one fraction cannot be proposed), got {atoms}")
        if fraction_lr < 0 or entropy < 0:
            raise ValueError(f"head.fraction_lr and head.entropy must be >= 0, got {fraction_lr} and {entropy}")
        self.kappa, self.fraction_lr, self.entropy = float(kappa), float(fraction_lr), float(entropy)
        self.fraction = Linear(features, atoms)
        nn.init.xavier_uniform_(self.fraction.weight, gain=0.01)  # the fractions start almost evenly spaced
        nn.init.zeros_(self.fraction.bias)
        self.embedding = Embedding(features, cosines)
        self.output = output(features, num_actions, 1)

    def slow_parameters(self) -> list[nn.Parameter]:
        """The parameters that want `fraction_lr` times the lr of the others."""
        return list(self.fraction.parameters())

    def quantiles(self, features: Tensor, tau: Tensor, mask: Tensor | None) -> Tensor:
        """z(τ). features [..., F], τ [..., N] → [..., A, N]."""
        return _at(self.output, self.embedding(features, tau), mask)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        logits = self.fraction(features.detach())
        probs = logits.softmax(-1)  # [..., N]
        ends = probs.cumsum(-1)  # τ_1 … τ_N
        borders, width = ends[..., :-1], probs.detach()
        tau = ends.detach() - 0.5 * width
        border_z = None
        if self.training and torch.is_grad_enabled():  # one pass for both: they must see the same noise
            z = self.quantiles(features, torch.cat([tau, borders.detach()], -1), mask)
            z, border_z = z[..., : tau.shape[-1]], z[..., tau.shape[-1] :].detach()
        else:
            z = self.quantiles(features, tau, mask)
        entropy = -(probs * logits.log_softmax(-1)).sum(-1)
        q = (z * width.unsqueeze(-2)).sum(-1)
        return Proposed(q, z, tau, probs=width, borders=borders, border_z=border_z, entropy=entropy)

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """z(τ̂) = Σ_a π(a) h⁻¹(z_a(τ̂)). z [..., A, N], π [..., A] → atoms, probs τ_{i+1} − τ_i [..., N]."""
        if not isinstance(values, Proposed) or values.probs is None:
            raise ValueError("head=full_quantile wants the values its own forward made")
        return _mix(values, pi, inverse), values.probs

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """L = Σ_i E_y[ρ_τ̂i(y − z(τ̂_i, a))], y ~ (atoms, probs) [T, B, N′] → loss, td_error E[y] − q(a) [T, B].

        Added to it is what has value zero and the fractions' gradient.
        """
        error, td_error = _loss(values, action, atoms, probs, self.kappa)
        if not isinstance(values, Proposed) or values.borders is None or values.entropy is None:
            raise ValueError("head=full_quantile wants the values its own forward made")
        if values.border_z is None:  # read without gradients
            return error, td_error
        z = chosen_atoms(atoms_of(values), action).detach()  # [T, B, N]
        slope = 2 * chosen_atoms(values.border_z, action) - z[..., 1:] - z[..., :-1]  # [T, B, N−1]
        surrogate = (slope * values.borders).sum(-1) - self.entropy * values.entropy
        return error + (surrogate - surrogate.detach()), td_error


def _at(output: nn.Module, features: Tensor, mask: Tensor | None) -> Tensor:
    """[..., N, F] → [..., A, N]."""
    z = output(features, None if mask is None else mask.unsqueeze(-2))  # [..., N, A, 1]
    return z.squeeze(-1).transpose(-1, -2)


def _mix(values: Values, pi: Tensor, inverse: Inverse) -> Tensor:
    check_mix(values, pi)
    return mixed(inverse(atoms_of(values)), pi)


def _loss(values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None, kappa: float) -> tuple[Tensor, Tensor]:
    check_loss(values, action, atoms)
    if values.tau is None:
        raise ValueError("a quantile head wants the fractions of its quantiles in Values.tau")
    z = chosen_atoms(atoms_of(values), action)  # [T, B, N]
    error = quantile_huber(z, values.tau, atoms, probs, kappa)
    q = values.q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return error, (expectation(atoms, probs) - q).detach()


def _midpoints(count: int) -> Tensor:
    return (torch.arange(count) + 0.5).to(torch.get_default_dtype()) / count


def _check(kappa: float, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"head.{name} must be at least 1, got {count}")
    if kappa < 0:
        raise ValueError(f"head.kappa must be >= 0, got {kappa}")
