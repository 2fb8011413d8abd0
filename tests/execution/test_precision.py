import pytest
import torch
from conftest import configure
from torch.utils._python_dispatch import TorchDispatchMode

from dqn.config import build
from dqn.errors import UsageError
from dqn.execution import engines

IMAGES = ["env=tensor_breakout", "env.num_envs=4", "torso=minatar_cnn", "learning_starts=40", "train_every=4",
          "tuned.capacity=500", "tuned.batch_size=8", "steps=80"]  # fmt: skip


class Kinds(TorchDispatchMode):
    """Notes the dtypes of what matrix products and convolutions are given."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func) in ("aten.addmm.default", "aten.convolution.default", "aten.mm.default"):
            self.seen |= {x.dtype for x in args if isinstance(x, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_before():
    yield
    torch.set_float32_matmul_precision("highest")


def test_bf16_is_the_torsos_and_everything_else_stays_a_float(wired):
    exact, rounded = (wired(*IMAGES, f"execution.precision={name}").trainer for name in ("float32", "bf16"))
    for trainer in (exact, rounded):
        trainer.run()
    with Kinds() as kinds:
        stats, _ = rounded.update()
    assert kinds.seen == {torch.bfloat16, torch.float32}  # the torso's, and the head's
    assert {p.dtype for p in rounded.learner.parameters} == {stats.dtype} == {torch.float32}
    obs = exact.memory.sample().obs[0]
    rounded.learner.online.load_state_dict(exact.learner.online.state_dict())
    q, other = exact.learner.online(obs).q, rounded.learner.online(obs).q
    assert other.dtype == torch.float32 and not torch.equal(q, other)
    torch.testing.assert_close(other, q, atol=0.02, rtol=0.02)


def test_bf16_in_a_recorded_update_is_bf16_as_written(wired, recorded_only):
    written, recorded = (wired(*IMAGES, "execution.precision=bf16").trainer for _ in range(2))
    for trainer in (written, recorded):
        trainer.run()
    recorded.update = engines.Compiled(torch.device("cpu"), 0).capture(recorded.update, recorded.learner.optimizer)
    for _ in range(3):
        written.update(), recorded.update()
    for mine, theirs in zip(written.learner.parameters, recorded.learner.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_channels_last_is_a_layout_and_changes_nothing_else(wired):
    usual, last = (wired(*IMAGES, f"execution.channels_last={on}").trainer for on in (False, True))
    for trainer in (usual, last):
        trainer.run()
    convolution = next(p for p in last.learner.parameters if p.ndim == 4)
    assert convolution.is_contiguous(memory_format=torch.channels_last) and not convolution.is_contiguous()
    for mine, theirs in zip(usual.learner.parameters, last.learner.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)
    again = wired(*IMAGES, "execution.channels_last=true").trainer
    assert list(again.restore(last.checkpoints.load()))
    for mine, theirs in zip(last.learner.parameters, again.learner.parameters, strict=True):
        assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()


def test_tf32_is_torchs_setting_and_the_next_run_sets_its_own(wired):
    wired("env=chain", "execution.precision=tf32")
    assert torch.get_float32_matmul_precision() == "high"
    wired("env=chain")
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    "override, says",
    [("execution.precision=half", "must be float32 or tf32 or bf16"), ("execution.channels_last=1", "true or false")],
)
def test_what_is_no_precision_is_refused_in_a_sentence(override, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        build.run(configure("env=chain", override), tmp_path)


def test_numbers_too_small_to_be_normal_are_zero_within_an_update_and_nowhere_else(wired, monkeypatch):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    torch.set_flush_denormal(False)
    tiny, seen = torch.tensor([1e-38]), []
    trainer = wired("env=chain", "steps=200", "learning_starts=50").trainer
    sample = trainer.memory.sample

    def noting():
        seen.append((tiny / 100).item())
        return sample()

    monkeypatch.setattr(trainer.memory, "sample", noting)
    trainer.run()
    assert len(seen) == trainer.updates > 0 and set(seen) == {0.0}
    assert (tiny / 100 > 0).all()
    monkeypatch.setattr(trainer.memory, "sample", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.update()
    assert (tiny / 100 > 0).all()
