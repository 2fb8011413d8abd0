"""PQN's passes: one batch, its targets computed once, in shuffled minibatches."""

import numpy as np
import pytest
import torch

from dqn.learning.learner import Learner
from dqn.learning.minibatches import Passes
from dqn.learning.objective import Objective
from dqn.networks.heads import Categorical, Expected
from dqn.networks.qnetwork import QNetwork
from dqn.networks.torsos import MLP
from dqn.ops.backups import q_learning
from dqn.ops.transforms import Identity
from dqn.types import Batch, Spec

SPEC = Spec((3,), np.dtype(np.float32), 4)


def rollout(length=5, columns=7):
    """A rollout whose rewards number its rows."""
    return Batch(
        torch.randn(length + 1, columns, 3), torch.randint(4, (length, columns)),
        torch.arange(length * columns).reshape(length, columns).float(), torch.full((length, columns), 0.9),
        torch.ones(length, columns), done=torch.zeros(length, columns, dtype=torch.bool),
    )  # fmt: skip


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (3, 4), (2, 35), (1, 8)])
def test_every_row_comes_once_an_epoch_with_its_own_target(epochs, minibatches):
    batch, passes = rollout(), Passes(epochs, minibatches, torch.Generator().manual_seed(0))
    atoms = batch.reward.unsqueeze(-1) * 2
    flat = passes.flatten(batch, atoms, None)
    parts = [passes.part(rows, *flat) for rows in passes.rows(35, torch.device("cpu"))]
    assert len(parts) == passes.steps == epochs * minibatches
    for epoch in range(epochs):
        seen = []
        for part, target, probs in parts[epoch * minibatches : (epoch + 1) * minibatches]:
            assert probs is None
            assert torch.equal(target[..., 0], part.reward * 2)
            t, b = np.divmod(part.reward[0].long().numpy(), 7)
            assert torch.equal(part.obs[0], batch.obs[t, b])
            assert torch.equal(part.action[0], batch.action[t, b])
            seen += part.reward[0].tolist()
        assert sorted(seen) == list(range(35))
    if epochs > 1 and minibatches > 1:
        assert not torch.equal(parts[0][0].reward, parts[minibatches][0].reward)  # shuffled anew


@pytest.mark.parametrize("head", [Expected, Categorical])
def test_targets_are_computed_once_before_the_first_step(head):
    torch.manual_seed(0)
    online = QNetwork(torso := MLP(SPEC, [8]), head(torso.features, 4))
    objective, calls = Objective(q_learning, Identity()), []
    compute = objective.targets
    objective.targets = lambda *a: calls.append(1) or compute(*a)
    learner = Learner(online, objective, lambda p: torch.optim.SGD(p, lr=0.1), polyak=None,
                      passes=Passes(2, 3, torch.Generator().manual_seed(0)))  # fmt: skip
    before = [p.clone() for p in learner.parameters]
    stats, td_error = learner.update(rollout())
    assert (len(calls), learner.steps, td_error) == (1, 6, None)
    assert stats.isfinite().all()
    assert not all(map(torch.equal, before, learner.parameters))


def test_one_pass_of_one_minibatch_is_the_plain_update():
    torch.manual_seed(0)
    online = QNetwork(torso := MLP(SPEC, [8]), Expected(torso.features, 4))
    batch, learners = rollout(), []
    for passes in (None, Passes(1, 1, torch.Generator())):
        twin = QNetwork(torso := MLP(SPEC, [8]), Expected(torso.features, 4))
        twin.load_state_dict(online.state_dict())
        learners.append(Learner(twin, Objective(q_learning, Identity(), lambda_=0.7),
                                lambda p: torch.optim.SGD(p, lr=0.1), polyak=None, passes=passes))  # fmt: skip
        learners[-1].update(batch)
    for a, b in zip(*(learner.parameters for learner in learners), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_lambda_return_of_a_rollout_is_the_batch_s_target():
    torch.manual_seed(0)
    online, batch = QNetwork(torso := MLP(SPEC, [8]), Expected(torso.features, 4)), rollout()
    batch.done[2, 3] = True
    atoms, _ = Objective(q_learning, Identity(), lambda_=0.7).targets(online, online, batch)
    with torch.no_grad():
        value = online(batch.obs[1:]).q.amax(-1)
    for b in range(7):
        following = value[-1, b]
        for t in range(4, -1, -1):
            trace = 0.0 if t == 4 or batch.done[t, b] else 0.7
            following = batch.reward[t, b] + 0.9 * ((1 - trace) * value[t, b] + trace * following)
            assert atoms[t, b, 0].item() == pytest.approx(following.item(), rel=1e-5)


def test_wrong_numbers_are_refused():
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="passes"):
            Passes(*bad, torch.Generator())
