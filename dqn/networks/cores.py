"""Cores: what is remembered of the observations before.

A core takes features [L, B, F], a state [B, S] and the rows that begin an episode [L, B]; it gives features
[L, B, `features`] and the state after the last row. A zero state is the memory of nothing.
"""

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """h_t = cell(x_t, h_{t−1}), with h_{t−1} = 0 where row t begins an episode; state and output are width `hidden`.

    `cell` is `lstm` (Hochreiter & Schmidhuber, 1997; the state holds h and c, S = 2·hidden) or `gru` (Cho et al.,
    2014; S = hidden). Hausknecht & Stone (2015), DRQN; Kapturowski et al. (2019), R2D2.
    Errors: ValueError for another cell or a width that is not positive.
    """

    def __init__(self, features: int, hidden: int, cell: str):
        super().__init__()
        if cell not in ("lstm", "gru") or hidden < 1:
            raise ValueError(f"core.cell must be lstm or gru and core.hidden ≥ 1, got {cell!r} and {hidden}")
        self.lstm = cell == "lstm"
        self.cell = (nn.LSTMCell if self.lstm else nn.GRUCell)(features, hidden)
        self.features, self.state_size = hidden, hidden * (2 if self.lstm else 1)

    def forward(self, x: Tensor, state: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            raise ValueError("core=lstm and core=gru need features: choose torso=mlp instead of torso=table")
        outputs = []
        for t in range(x.shape[0]):
            if begins is not None:
                state = state * (~begins[t]).to(state.dtype).unsqueeze(-1)
            if self.lstm:
                h, c = self.cell(x[t], (state[:, : self.features], state[:, self.features :]))
                state = torch.cat([h, c], -1)
            else:
                h = state = self.cell(x[t], state)
            outputs.append(h)
        return torch.stack(outputs), state


def nothing(features: int) -> None:
    """No core: what is seen now is all there is."""
