"""Layers: the linear maps every torso and head is built from."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y = W x + b for x [..., in]; for numbers x [...] int64 the same on one-hot vectors, y = W[:, x] + b."""
    if input.is_floating_point():
        return F.linear(input, weight, bias)
    y = F.embedding(input, weight.t())
    return y if bias is None else y + bias


class Linear(nn.Linear):
    """y = W x + b for features x [..., in]; for state numbers x [...] int64 the same on one-hot vectors,
    y = W[:, x] + b.

    The look-up spares the product with zeros: a table of a million states costs one column per sample.
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Table(Linear):
    """The Q-table as a layer: W [out, in] without bias, starting at `value` everywhere. Watkins (1989)."""

    def __init__(self, in_features: int, out_features: int, value: float = 0.0):
        super().__init__(in_features, out_features, bias=False)
        nn.init.constant_(self.weight, value)


class Noisy(Linear):
    """y = (μ + σ ⊙ f(ε_out) f(ε_in)ᵀ) x + μ_b + σ_b ⊙ f(ε_out), f(x) = sgn(x)√|x|: learnt exploration by factorised
    Gaussian noise, fresh in every training pass and one for the whole batch; in evaluation the means μ alone.

    μ starts uniform in ±1/√in (nn.Linear's own start), σ at `sigma0`/√in. `generator` draws ε (None: torch's stream).
    Errors: ValueError for a negative `sigma0`. Fortunato et al. (2018), eq. 10–11 and §3.2.
    """

    generator: torch.Generator | None = None

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5):
        super().__init__(in_features, out_features)
        if sigma0 < 0:
            raise ValueError(f"layer.sigma0 must be >= 0, got {sigma0}")
        sigma = sigma0 / in_features**0.5
        self.weight_sigma = nn.Parameter(torch.full_like(self.weight, sigma))
        self.bias_sigma = nn.Parameter(torch.full_like(self.bias, sigma))

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return linear(input, self.weight, self.bias)
        size, like = self.in_features + self.out_features, self.weight
        noise = torch.randn(size, generator=self.generator, device=like.device, dtype=like.dtype)
        ahead, behind = (noise.sign() * noise.abs().sqrt()).split([self.in_features, self.out_features])
        weight = self.weight + self.weight_sigma * torch.outer(behind, ahead)
        return linear(input, weight, self.bias + self.bias_sigma * behind)


class Spectral(Linear):
    """y = (W / σ(W)) x + b, σ the largest singular value: a map that stretches nothing, Lipschitz with constant 1.

    σ is followed by one step of power iteration in every training pass. Miyato et al. (2018), eq. 8 and alg. 1;
    in deep Q-learning Gogianu et al. (2021).
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        spectral_norm(self)


class Embedding(nn.Module):
    """Features at a fraction of the return's distribution: φ ⊙ relu(W cos(π i τ) + b), i = 0 … n−1.

    features φ [..., F], τ [..., N] → [..., N, F]. Errors: ValueError for state numbers, which cannot be multiplied.
    Dabney et al. (2018b), eq. 4.
    """

    frequency: Tensor

    def __init__(self, features: int, cosines: int):
        super().__init__()
        self.register_buffer("frequency", torch.pi * torch.arange(cosines).to(torch.get_default_dtype()), False)
        self.linear = Linear(cosines, features)

    def forward(self, features: Tensor, tau: Tensor) -> Tensor:
        if not features.is_floating_point():
            raise ValueError("a head with fractions of its own cannot read state numbers: choose torso=mlp")
        waves = (tau.unsqueeze(-1) * self.frequency).cos()  # [..., N, n]
        return features.unsqueeze(-2) * self.linear(waves).relu()


def hidden_layers(
    features: int,
    hidden: Sequence[int],
    layer: Callable[[int, int], nn.Module] = Linear,
    norm: str | None = None,
    owner: str = "torso",
) -> list[nn.Module]:
    """x ← relu(norm(W x + b)) for each width; errors name the options of `owner`."""
    if any(width < 1 for width in hidden):
        raise ValueError(f"{owner}.hidden must name positive widths, got {list(hidden)}")
    modules: list[nn.Module] = []
    for width in hidden:
        modules += [layer(features, width), *normalisation(norm, width, owner), nn.ReLU()]
        features = width
    return modules


def normalisation(kind: str | None, features: int, owner: str = "torso") -> list[nn.Module]:
    """What stands after a hidden layer: `layer` is LayerNorm (Ba et al., 2016), `null` nothing."""
    if kind not in (None, "layer"):
        raise ValueError(f"{owner}.norm must be null or 'layer', got {kind!r}")
    return [nn.LayerNorm(features)] if kind == "layer" else []
