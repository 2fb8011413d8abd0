import copy
from functools import partial

import numpy as np
import pytest
import torch

from dqn.learning.learner import STATS, Learner
from dqn.learning.objective import Objective
from dqn.networks.heads import Categorical, Expected, HLGauss
from dqn.networks.qnetwork import QNetwork
from dqn.networks.quantiles import Quantile
from dqn.networks.torsos import MLP
from dqn.ops.backups import double_q, expected_sarsa, greedy, munchausen, q_learning, soft
from dqn.ops.transforms import Identity, SignedHyperbolic
from dqn.types import Backup, Batch, Spec, Values

SPEC = Spec((3,), np.dtype(np.float64), 4)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def network():
    return QNetwork(torso := MLP(SPEC, [8]), Expected(torso.features, 4))


def batch(size=16, weight=None):
    return Batch(
        torch.randn(2, size, 3), torch.randint(4, (1, size)), torch.randn(1, size),
        0.9 * (torch.rand(1, size) < 0.8).double(), torch.ones(size) if weight is None else weight,
    )  # fmt: skip


def learner(polyak=1.0, **kwargs):
    return Learner(network(), Objective(q_learning, Identity()), lambda p: torch.optim.SGD(p, lr=0.1), polyak, **kwargs)


@pytest.mark.parametrize("backup", [q_learning, double_q])
@pytest.mark.parametrize("transform", [Identity(), SignedHyperbolic(1e-2)])
def test_targets_are_the_closed_form(backup, transform):
    online, target, data = network(), network(), batch()
    atoms, _ = Objective(backup, transform).targets(online, target, data)
    for b in range(16):
        q = target(data.obs[1, b]).q
        best = (q if backup is q_learning else online(data.obs[1, b]).q).argmax()
        want = transform(data.reward[0, b] + data.discount[0, b] * transform.inverse(q[best]))
        assert atoms[0, b, 0].item() == pytest.approx(want.item(), abs=1e-12)


@pytest.mark.parametrize("head", [Expected, partial(Categorical, v_min=-30.0, v_max=30.0), Quantile, HLGauss])
def test_actions_are_averaged_as_returns_not_as_what_the_network_says(head):
    """Pohlen et al. (2018): h⁻¹ of each action's value, then the expectation; h is not linear."""
    h = SignedHyperbolic(1e-2)
    nets = [QNetwork(torso := MLP(SPEC, [8]), head(torso.features, 4)) for _ in range(2)]
    data = batch()
    values = nets[1](data.obs[1])
    for backup, pi in (
        (partial(expected_sarsa, epsilon=0.5), 0.125 + 0.5 * greedy(values.q)),
        (partial(soft, temperature=3.0), (h.inverse(values.q) / 3).softmax(-1)),
    ):
        atoms, probs = Objective(backup, h).targets(*nets, data)
        if head in (Expected, HLGauss):
            following = (pi * h.inverse(values.q)).sum(-1, keepdim=True)
        elif head is Quantile:
            following = (pi.unsqueeze(-1) * h.inverse(values.z)).sum(-2)
        else:
            following = h.inverse(nets[1].head.support).expand(16, -1)
            torch.testing.assert_close(probs[0], (pi.unsqueeze(-1) * values.z.exp()).sum(-2))
        entropy = -3.0 * (pi * pi.log()).sum(-1) if backup.func is soft else torch.zeros(16)
        want = h(data.reward[0, :, None] + data.discount[0, :, None] * (following + entropy[:, None]))
        torch.testing.assert_close(atoms[0], want)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("backup", "q"), [(soft, 9 * np.log(2)), (munchausen, -np.log(2))])
def test_a_longer_return_collects_the_entropy_on_its_way(backup, q, lambda_):
    """A world with one state, two equal actions and no reward, τ = 1, γ = 0.9: every λ has the same fixed point."""

    class Known:
        head = Expected(1, 2)

        def values_at(self, batch, rows):
            return Values(torch.full((6, 3, 2), float(q)))

    data = Batch(torch.zeros(7, 3), torch.zeros(6, 3, dtype=torch.int64), torch.zeros(6, 3), torch.full((6, 3), 0.9),
                 torch.ones(3), done=torch.zeros(6, 3, dtype=torch.bool))  # fmt: skip
    rule = partial(backup, temperature=1.0) if backup is soft else partial(backup, temperature=1.0, scale=1.0)
    atoms, _ = Objective(rule, Identity(), lambda_).targets(Known(), Known(), data)
    want = 0.9 * (q + np.log(2)) - (np.log(2) if backup is munchausen else 0)
    torch.testing.assert_close(atoms, torch.full_like(atoms, want))
    assert want == pytest.approx(q)


@pytest.mark.parametrize("head", [Expected, partial(Categorical, atoms=5), partial(HLGauss, bins=5), Quantile])
@pytest.mark.parametrize("h", [Identity(), SignedHyperbolic(1e-2)])
def test_a_backup_may_name_one_action_by_its_number(head, h):
    """As with all the weight on it, and without a weight for each action."""
    nets = [QNetwork(torso := MLP(SPEC, [8]), head(torso.features, 4)) for _ in range(2)]
    data = batch()
    by_weight = Objective(q_learning, h).targets(*nets, data)
    by_number = Objective(lambda following, *_: Backup(following.q.argmax(-1)), h).targets(*nets, data)
    for want, found in zip(by_weight, by_number, strict=True):
        assert (want is None and found is None) or torch.equal(want, found)
    with pytest.raises(ValueError, match="equal shape"):
        Objective(lambda following, *_: Backup(following.q.argmax(-1)[..., :3]), h).targets(*nets, data)


def test_learners_that_learn_as_one_are_one_with_the_batches_together():
    """Two ranks of batch B, whose gradients are averaged before the clip, and one of batch 2B on the same samples."""
    start, whole = network(), batch(32)
    halves = [
        Batch(whole.obs[:, i : i + 16], *(x[:, i : i + 16] for x in (whole.action, whole.reward, whole.discount)),
              whole.weight[i : i + 16])
        for i in (0, 16)
    ]  # fmt: skip

    def made(reduce):
        more = {} if reduce is None else {"reduce": reduce}
        objective = Objective(q_learning, Identity())
        return Learner(
            copy.deepcopy(start), objective, lambda p: torch.optim.SGD(p, lr=0.1), max_grad_norm=0.05, **more
        )

    given = []
    for half in halves:
        made(lambda gradient: given.append(gradient.clone()) or gradient).update(half)
    alone, one = made(None), made(lambda _: sum(given) / 2)
    alone.update(whole)
    one.update(halves[0])
    torch.testing.assert_close(one.vectors[0].vector, alone.vectors[0].vector, rtol=1e-12, atol=1e-12)
    assert not torch.equal(one.vectors[0].vector, made(None).vectors[0].vector)


def test_an_optimizer_that_treats_its_first_step_apart_is_refused():
    with pytest.raises(ValueError, match=r"optimizer.dampening must be 0"):
        Learner(network(), Objective(q_learning, Identity()), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0.5))


def test_the_gradient_is_semi_and_equals_a_numeric_one():
    online, target, data = network(), network(), batch()
    objective = Objective(q_learning, Identity())
    objective(online, target, data).total.backward()
    assert all(p.grad is None for p in target.parameters())
    frozen = copy.deepcopy(online)  # as its own target: the bootstrap must not move with the parameters
    parameter = online.head.output.layers[0].weight
    analytic, step = parameter.grad[1, 2].item(), 1e-6
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            parameter[1, 2] += sign * step
            losses.append(objective(online, target, data).total.item())
        parameter[1, 2] += step
    assert analytic == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)
    online.zero_grad()
    objective(online, online, data).total.backward()
    shared = parameter.grad.clone()
    online.zero_grad()
    objective(online, frozen, data).total.backward()
    assert torch.equal(shared, parameter.grad)


def test_the_gradient_scales_with_the_importance_weight():
    online, target, data = network(), network(), batch(1)
    grads = []
    for weight in (1.0, 0.25):
        online.zero_grad()
        data.weight = torch.tensor([weight])
        Objective(q_learning, Identity())(online, target, data).total.backward()
        grads.append(online.head.output.layers[0].weight.grad.clone())
    assert torch.allclose(grads[0] * 0.25, grads[1])


def test_a_loss_of_the_wrong_shape_is_refused():
    online, data = network(), batch()
    data.weight = torch.ones(16, 1)
    with pytest.raises(ValueError, match=r"\[T, B\]"):
        Objective(q_learning, Identity())(online, online, data)


def test_the_soft_step_is_the_closed_form_and_storage_is_distinct():
    mind = learner(polyak=0.1)
    before = [p.clone() for p in mind.target.parameters()]
    mind.update(batch())
    mind.sync_target()
    for old, theirs, mine in zip(before, mind.online.parameters(), mind.target.parameters(), strict=True):
        assert torch.allclose(mine, old + 0.1 * (theirs - old))
        assert mine.data_ptr() != theirs.data_ptr()
        assert not mine.requires_grad
    hard = learner(polyak=1.0)
    hard.update(batch())
    hard.sync_target()
    assert all(map(torch.equal, hard.online.parameters(), hard.target.parameters()))
    shared = learner(polyak=None)
    assert shared.target is shared.online


def test_the_gradient_is_clipped_to_the_bound_and_reported_unclipped():
    free, bound = learner(), learner(max_grad_norm=1e-3)
    bound.online.load_state_dict(free.online.state_dict())
    bound.target.load_state_dict(free.target.state_dict())
    data, start = batch(), [p.clone() for p in free.parameters]
    stats = dict(zip(STATS, free.update(data)[0].tolist(), strict=True))
    assert dict(zip(STATS, bound.update(data)[0].tolist(), strict=True)) == pytest.approx(stats)
    for p0, p1, p2 in zip(start, free.parameters, bound.parameters, strict=True):
        assert torch.allclose((p2 - p0) * stats["grad_norm"], (p1 - p0) * 1e-3, rtol=1e-3)


def test_state_round_trip_continues_exactly():
    mind = Learner(network(), Objective(q_learning, Identity()), lambda p: torch.optim.Adam(p, lr=1e-2), 1.0)
    data = batch()
    mind.update(data)
    saved = {k: v.clone() for k, v in mind.state().items()}
    twin = Learner(network(), Objective(q_learning, Identity()), lambda p: torch.optim.Adam(p, lr=1e-2), 1.0)
    twin.load(saved)
    assert torch.equal(mind.update(data)[0], twin.update(data)[0])
    assert all(map(torch.equal, mind.parameters, twin.parameters))


def test_options_are_checked():
    for bad in ({"polyak": 0.0}, {"polyak": 1.5}, {"max_grad_norm": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            learner(**bad)
