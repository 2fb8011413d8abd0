"""Outputs: features [..., F], or state numbers [...] int64, turned into numbers for each action [..., A, N]."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from dqn.networks.layers import Linear, hidden_layers


class Single(nn.Module):
    """One stack of layers for all actions: x ← relu(norm(W x + b)) for each hidden width, then W x + b [..., A, N].

    Errors: ValueError for a width that is not positive, a norm without hidden layers.
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        atoms: int = 1,
        hidden: Sequence[int] = (),
        layer: Callable[[int, int], nn.Module] = Linear,
        norm: str | None = None,
    ):
        super().__init__()
        self.num_actions, self.atoms = num_actions, atoms
        self.layers = stack(features, num_actions * atoms, hidden, layer, norm)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        flat = self.layers(features)
        return flat.view(*flat.shape[:-1], self.num_actions, self.atoms)


class Dueling(nn.Module):
    """Two stacks, what the state is worth and what each action adds:
    out(a) = V + Adv(a) − mean over the legal actions a′ of Adv(a′), for each of the N atoms.

    V has all N atoms, so it does not cancel in a categorical head's softmax. `mask` [..., A] bool marks the legal
    actions (None: all). Errors: ValueError for a width that is not positive, a mask that does not fit.
    Wang et al. (2016), eq. 9; with atoms Hessel et al. (2018), §"The Integrated Agent".
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        atoms: int = 1,
        hidden: Sequence[int] = (),
        layer: Callable[[int, int], nn.Module] = Linear,
        norm: str | None = None,
    ):
        super().__init__()
        self.num_actions, self.atoms = num_actions, atoms
        self.value = stack(features, atoms, hidden, layer, norm)
        self.advantage = stack(features, num_actions * atoms, hidden, layer, norm)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        value = self.value(features).unsqueeze(-2)  # [..., 1, N]
        advantage = self.advantage(features).unflatten(-1, (self.num_actions, self.atoms))  # [..., A, N]
        if mask is None:
            return value + advantage - advantage.mean(-2, keepdim=True)
        if mask.ndim != advantage.ndim - 1 or mask.shape[-1] != self.num_actions:
            raise ValueError(
                f"the mask must be [..., A] for advantages [..., A, N], got {tuple(mask.shape)} and "
                f"{tuple(advantage.shape)}"
            )
        legal = mask.unsqueeze(-1)
        count = legal.sum(-2, keepdim=True).clamp(min=1)  # a row without any legal action must stay finite
        return value + advantage - advantage.masked_fill(~legal, 0.0).sum(-2, keepdim=True) / count


def stack(
    features: int, out: int, hidden: Sequence[int], layer: Callable[[int, int], nn.Module], norm: str | None
) -> nn.Sequential:
    """Hidden layers and a last linear map: features [..., F] → [..., out]. Errors: ValueError for a lone norm."""
    if norm is not None and not hidden:
        raise ValueError("output.norm stands after hidden layers: name some in output.hidden, or set output.norm=null")
    stack = hidden_layers(features, hidden, layer, norm, "output")
    return nn.Sequential(*stack, layer(hidden[-1] if hidden else features, out))
