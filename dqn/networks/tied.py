"""Values of the candidates of a frozen language model, tied to its output embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dqn.causal_lm import load
from dqn.networks.layers import Linear
from dqn.networks.outputs import stack
from dqn.types import Spec


class Candidates(nn.Module):
    """The hidden vector of a language model and its candidates' token numbers, after one another, [..., d + K].

    It has no parameters. Errors: ValueError for observations that are not those of env=lm.
    """

    def __init__(self, spec: Spec):
        super().__init__()
        parts = dict(spec.parts)
        if {*parts} != {"hidden", "token"}:
            raise ValueError("torso=candidates reads what env=lm shows: choose env=lm, or another torso")
        self.features = parts["hidden"].obs_shape[0] + parts["token"].obs_shape[0]

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        hidden = obs["hidden"]
        return torch.cat([hidden, obs["token"].to(hidden.dtype)], -1)  # numbers below 2²⁴ are exact in float32


class Frozen(nn.Module):
    """A matrix [V, d] that is given and never learnt: no checkpoint holds it, and copies of a network share it."""

    weight: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of the matrix by their numbers [...] → [..., d], in torch's default dtype."""
        return F.embedding(rows, self.weight).to(torch.get_default_dtype())


class Tied(nn.Module):
    """out(s, a) = v(s) + e_aᵀ A h(s), for each of N atoms a matrix A of its own.

    h [d] is the language model's hidden vector and e_a [d] the output embedding of candidate a, both divided by their
    mean length. A begins at zero: then all candidates are worth the same, and a policy guided by the values is the
    language model itself. With `rank` r, A is Lᵀ A′ R, with A′ [r, r] of each atom and L, R [r, d] of all. v is a stack
    with `hidden` widths; its last layer begins at zero.

    `model` and `dtype` name the language model (causal_lm.load). features [..., d + K] → [..., K, N].
    Errors: ValueError where the features are not those of torso=candidates, or a rank that is not positive.
    Dueling form: Wang et al. (2016), eq. 7; bilinear in an action's embedding: He et al. (2016), DRRN, eq. 4.
    """

    norms: Tensor

    def __init__(
        self,
        features: int,
        num_actions: int,
        atoms: int = 1,
        model: str = "",
        dtype: str = "float32",
        rank: int | None = None,
        hidden: Sequence[int] = (),
        layer: Callable[[int, int], nn.Module] = Linear,
        norm: str | None = None,
    ):
        super().__init__()
        lm = load(model, dtype)
        self.num_actions, self.atoms, self.width = num_actions, atoms, lm.embeddings.shape[1]
        if features != self.width + num_actions:
            raise ValueError("output=tied reads the hidden vector and the candidates as they are: set torso=candidates")
        if rank is not None and rank < 1:
            raise ValueError(f"output.rank must be ≥ 1 or null, got {rank}")
        self.table = Frozen(lm.embeddings)
        self.register_buffer("norms", torch.tensor(lm.norms))
        size = rank or self.width
        self.matrix = nn.Parameter(torch.zeros(atoms, size, size))
        self.left = self.right = None
        if rank is not None:
            scaled = torch.randn(2, rank, self.width) * rank**-0.5  # which keeps lengths
            self.left, self.right = nn.Parameter(scaled[0].clone()), nn.Parameter(scaled[1].clone())
        self.value = stack(self.width, atoms, hidden, layer, norm)
        for parameter in self.value[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = features[..., : self.width] / self.norms[1]
        embedded = self.table(features[..., self.width :].long())  # [..., K, d]
        value = self.value(hidden * self.width**0.5).unsqueeze(-2)  # [..., 1, N]
        if self.left is not None and self.right is not None:
            hidden, embedded = hidden @ self.right.T, embedded @ self.left.T
        wanted = torch.einsum("nij,...j->...ni", self.matrix, hidden / self.norms[0])  # [..., N, d]
        return value + torch.einsum("...ki,...ni->...kn", embedded, wanted)

    @torch.no_grad()
    def bilinear(self) -> Tensor:
        """The matrix M [d, d] of the mean over atoms, for which out(s, a) − v(s) = w_aᵀ M h, with output embeddings w_a
        and hidden vectors h as the language model has them."""
        matrix = self.matrix.mean(0)
        if self.left is not None and self.right is not None:
            matrix = self.left.T @ matrix @ self.right
        return matrix / (self.norms[0] * self.norms[1])
