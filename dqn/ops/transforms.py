"""Value transforms: learn h(Q) instead of Q where returns span orders of magnitude."""

import torch
from torch import Tensor


class Identity:
    """h(x) = x."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def inverse(self, x: Tensor) -> Tensor:
        return x


class SignedHyperbolic:
    """h(x) = sign(x)(√(|x|+1) − 1) + εx, any shape; the inverse is exact. Pohlen et al. (2018), prop. A.2.

    Errors: ValueError when epsilon is not positive (h would not be invertible with a Lipschitz inverse).
    """

    def __init__(self, epsilon: float = 1e-3):
        if epsilon <= 0:
            raise ValueError(f"the signed hyperbolic transform needs epsilon > 0, got {epsilon}")
        self.epsilon = epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sign(x) * (torch.sqrt(torch.abs(x) + 1) - 1) + self.epsilon * x

    def inverse(self, x: Tensor) -> Tensor:
        # with u = √(|y|+1): ε·u² + u − (1 + ε + |x|) = 0, solved in the form that does not cancel in float32
        c = 1 + self.epsilon + torch.abs(x)
        u = 2 * c / (1 + torch.sqrt(1 + 4 * self.epsilon * c))
        return torch.sign(x) * (u * u - 1)
