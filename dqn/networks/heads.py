"""Heads: how the return is represented and its error measured.

A head is (forward, mix, loss): features → Values; (values, π) → atoms, probs; (values, action, atoms, probs) →
(error, td_error). Here the heads of the expected return and of histograms; networks.quantiles has the others.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dqn.networks.outputs import Single
from dqn.ops.distributions import expectation, hl_gauss_target, project
from dqn.ops.transforms import Identity
from dqn.types import Values

Inverse = Callable[[Tensor], Tensor]  # h⁻¹, where a network says h of returns: they are mixed as returns
AS_IS = Identity().inverse
Output = Callable[[int, int, int], nn.Module]  # (features, num_actions, atoms) → a module with [..., A, atoms]


class Expected(nn.Module):
    """The expected return, one number an action: q = W φ + b. Mnih et al. (2015), §Methods.

    `loss`: `huber`, L(δ) = ½δ² for |δ| ≤ κ, κ(|δ| − ½κ) beyond (κ = 1 is DQN's error clipping), or `squared`, ½δ².
    Errors: ValueError for another loss or a κ that is not positive.
    """

    scalar = True  # its target is a number

    def __init__(
        self, features: int, num_actions: int, loss: str = "huber", kappa: float = 1.0, output: Output = Single
    ):
        super().__init__()
        if loss not in ("huber", "squared"):
            raise ValueError(f"head.loss must be 'huber' or 'squared', got {loss!r}")
        if kappa <= 0:
            raise ValueError(f"head.kappa must be > 0, got {kappa}")
        self.kind, self.kappa = loss, float(kappa)
        self.output = output(features, num_actions, 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        return Values(self.output(features, mask).squeeze(-1))

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """v = Σ_a π(a) h⁻¹(q(a)): one atom. q, π [..., A] → atoms [..., 1]."""
        return _mean(values, pi, inverse), None

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """δ = E[y] − q(a). q [T, B, A], action [T, B], y atoms [T, B, N′] → loss, td_error δ (detached) [T, B]."""
        check_loss(values, action, atoms)
        chosen = values.q.gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [T, B]
        target = expectation(atoms, probs)
        if self.kind == "huber":
            error = F.huber_loss(chosen, target, reduction="none", delta=self.kappa)
        else:
            error = 0.5 * (chosen - target) ** 2
        return error, (target - chosen).detach()


class Categorical(nn.Module):
    """C51: a probability for each of `atoms` evenly spaced returns, q = Σ_i z_i p_i. Bellemare, Dabney & Munos (2017).

    `Values.z` holds log-probabilities [..., A, N]. Loss: the cross-entropy to the target projected on the support.
    td_error: the KL divergence from it, the same less the target's entropy, so it is zero where nothing can be learnt
    (the priority of Hessel et al., 2018). Errors: ValueError for v_min not below v_max, fewer than two atoms.
    """

    support: Tensor

    def __init__(
        self,
        features: int,
        num_actions: int,
        v_min: float = -10.0,
        v_max: float = 10.0,
        atoms: int = 51,
        output: Output = Single,
    ):
        super().__init__()
        _check_range(v_min, v_max, "atoms", atoms)
        self.bounds = (v_min, v_max)
        self.register_buffer("support", torch.linspace(v_min, v_max, atoms), persistent=False)
        self.output = output(features, num_actions, atoms)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        return _histogram(self.output(features, mask), self.support)

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """The mixture Σ_a π(a) p_a. z [..., A, N], π [..., A] → atoms (h⁻¹ of the support), probs [..., N]."""
        check_mix(values, pi)
        probs = mixed(atoms_of(values).exp(), pi)
        return inverse(self.support.to(probs.dtype)).expand_as(probs), probs

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """L = −Σ_i m_i log p_i(a), m the projection of (atoms, probs) [T, B, N′] → loss, KL(m‖p) (detached) [T, B]."""
        check_loss(values, action, atoms)
        return _cross_entropy(values, action, project(atoms, probs, self.support))


class HLGauss(nn.Module):
    """A scalar target learnt by classification: a histogram of `bins`, q = Σ_i centre_i p_i, whose target is a
    Gaussian around the expected return, of σ = `sigma_ratio` bins. Imani & White (2018); Farebrother et al. (2024).

    As published only the mean is bootstrapped, so `mix` gives one atom. Near v_min and v_max the truncated Gaussian
    leans inwards: leave a few σ between them and the returns. `Values.z` holds log-probabilities; td_error is the KL
    divergence. Errors: ValueError for v_min not below v_max, fewer than two bins, a σ that is not positive.
    """

    scalar = True
    edges: Tensor
    centres: Tensor

    def __init__(
        self,
        features: int,
        num_actions: int,
        v_min: float = -10.0,
        v_max: float = 10.0,
        bins: int = 51,
        sigma_ratio: float = 0.75,
        output: Output = Single,
    ):
        super().__init__()
        _check_range(v_min, v_max, "bins", bins)
        if sigma_ratio <= 0:
            raise ValueError(f"head.sigma_ratio must be > 0, got {sigma_ratio}")
        edges, self.bounds = torch.linspace(v_min, v_max, bins + 1), (v_min, v_max)
        self.sigma = sigma_ratio * (v_max - v_min) / bins
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", (edges[1:] + edges[:-1]) / 2, persistent=False)
        self.output = output(features, num_actions, bins)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Values:
        return _histogram(self.output(features, mask), self.centres)

    def mix(self, values: Values, pi: Tensor, inverse: Inverse = AS_IS) -> tuple[Tensor, Tensor | None]:
        """v = Σ_a π(a) h⁻¹(q(a)): one atom. q, π [..., A] → atoms [..., 1]."""
        return _mean(values, pi, inverse), None

    def loss(self, values: Values, action: Tensor, atoms: Tensor, probs: Tensor | None) -> tuple[Tensor, Tensor]:
        """L = −Σ_i m_i log p_i(a), m the Gaussian's histogram, atoms [T, B, N′] → loss, KL(m‖p) (detached) [T, B]."""
        check_loss(values, action, atoms)
        return _cross_entropy(values, action, hl_gauss_target(atoms, probs, self.edges, self.sigma))


def check_mix(values: Values, pi: Tensor) -> None:
    """Refuses a policy that does not fit: q is [..., A], π [..., A], or the number of one action [...]."""
    wanted = values.q.shape if pi.is_floating_point() else values.q.shape[:-1]
    if pi.shape != wanted:
        raise ValueError(f"mix wants q and pi of equal shape, got {tuple(values.q.shape)}, {tuple(pi.shape)}")


def mixed(x: Tensor, pi: Tensor) -> Tensor:
    """Σ_a π(a) x(a): x [..., A, N], π [..., A] → [..., N]; where π is the number of one action [...], that action's."""
    if not pi.is_floating_point():
        return chosen_atoms(x, pi)
    return (x * pi.unsqueeze(-1)).sum(-2)


def check_loss(values: Values, action: Tensor, atoms: Tensor) -> None:
    """Refuses what would broadcast: q [T, B, A], action [T, B], atoms [T, B, N′]; ops.distributions checks probs."""
    if atoms.shape[:-1] != action.shape or values.q.shape[:-1] != action.shape:
        raise ValueError(
            f"loss wants q [T, B, A] and atoms [T, B, N'] for actions {tuple(action.shape)}, got "
            f"{tuple(values.q.shape)} and {tuple(atoms.shape)}"
        )


def atoms_of(values: Values) -> Tensor:
    """`values.z` [..., A, N], refused where it is missing or does not fit q [..., A]."""
    if values.z is None or values.z.shape[:-1] != values.q.shape:
        shape = None if values.z is None else tuple(values.z.shape)
        raise ValueError(f"this head wants z [..., A, N] beside q {tuple(values.q.shape)}, got {shape}")
    return values.z


def chosen_atoms(z: Tensor, action: Tensor) -> Tensor:
    """z of the action taken: z [..., A, N], action [...] → [..., N]."""
    index = action[..., None, None].expand(*action.shape, 1, z.shape[-1])
    return z.gather(-2, index).squeeze(-2)


def _mean(values: Values, pi: Tensor, inverse: Inverse) -> Tensor:
    check_mix(values, pi)
    if not pi.is_floating_point():
        return inverse(values.q).gather(-1, pi.unsqueeze(-1))
    return (inverse(values.q) * pi).sum(-1, keepdim=True)


def _histogram(logits: Tensor, support: Tensor) -> Values:
    z = logits.log_softmax(-1)  # [..., A, N]
    return Values((z.exp() * support).sum(-1), z)


def _cross_entropy(values: Values, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    z = chosen_atoms(atoms_of(values), action)  # [T, B, N]
    if target.shape != z.shape:
        raise ValueError(f"the target has shape {tuple(target.shape)}, the prediction {tuple(z.shape)}")
    error = -(target * z).sum(-1)
    entropy = -torch.xlogy(target, target).sum(-1)
    return error, (error.detach() - entropy.detach()).clamp(min=0)  # KL ≥ 0 but for rounding


def _check_range(v_min: float, v_max: float, name: str, count: int) -> None:
    if not v_min < v_max:
        raise ValueError(f"head.v_min must be below head.v_max, got {v_min} and {v_max}")
    if count < 2:
        raise ValueError(f"head.{name} must be at least 2, got {count}")
