import pytest
import torch

from dqn.networks.heads import Expected
from dqn.ops.backups import double_q, greedy, q_learning
from dqn.types import Values


def test_a11_double_q_chooses_with_the_online_and_values_with_the_target_network():
    target, online = torch.tensor([[[1.0, 5.0, 2.0]]]), torch.tensor([[[9.0, 0.0, 3.0]]])  # opposite rankings
    head = Expected(4, 3)
    assert head.mix(Values(target), q_learning(target, lambda: online).pi)[0].item() == 5.0
    assert head.mix(Values(target), double_q(target, lambda: online).pi)[0].item() == 1.0


def test_q_learning_never_asks_the_online_network():
    q_learning(torch.zeros(1, 1, 2), lambda: pytest.fail("one forward pass too many"))


def test_greedy_breaks_ties_by_the_first_action():
    assert greedy(torch.tensor([1.0, 1.0, 0.0])).tolist() == [1.0, 0.0, 0.0]


def test_a15_doors():
    with pytest.raises(ValueError, match="floating"):
        greedy(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="equal shapes"):
        double_q(torch.zeros(1, 2, 3), lambda: torch.zeros(1, 2, 4))
