"""A student imitates the policy of another run: by the same loop, whatever its own parts are, and never changing it."""

import json

import numpy as np
import pytest
import torch
from conftest import configure, here, world
from test_identity import NUMBERS

import dqn
from dqn import export, train
from dqn.config import build
from dqn.errors import UsageError
from dqn.learning.terms import Distillation
from dqn.seeding import parameter_hash
from dqn.types import ILLEGAL, Values

WORLD = world("test/Identity-v0", "+env.kwargs.box=true")
SMALL = ["algorithm=distill", *WORLD, "torso.hidden=[6]", "steps=1000", "tuned.lr=1e-2", "train_every=2"]
SMALL += ["learning_starts=100", "tuned.batch_size=32", "tuned.epsilon_steps=500", "optimizer.lr=1e-2"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The directory of a run that has solved its world: the action to take is what is observed."""
    directory = tmp_path_factory.mktemp("teacher") / "run"
    code, _, errors = here(
        train, *WORLD, *NUMBERS, "execution=eager", "tracking.evaluate_every=0", "tracking.final_episodes=4",
        "tracking.checkpoint_every=0", f"run.dir={directory}",
    )  # fmt: skip
    assert code == 0, errors
    assert json.loads((directory / "result.json").read_text())["evaluation"]["mean"] == 10
    return directory


def test_the_loss_is_the_divergence_over_legal_actions():
    """KL by its definition, with a teacher that says what it is told; illegal actions have no share."""
    coins = torch.Generator().manual_seed(0)
    q, taught = (3 * torch.randn(2, 3, 4, generator=coins) for _ in range(2))
    legal = torch.rand(q.shape, generator=coins) < 0.6
    legal[..., 1] = True
    q, taught = (x.masked_fill(~legal, ILLEGAL) for x in (q, taught))
    shown = []

    class Teacher:
        def values_at(self, batch, rows):
            shown.append((batch, rows))
            return Values(taught)

    term = Distillation(Teacher(), 0.7, 0.5)
    q.requires_grad_(True)
    got = term(Values(q), torch.zeros(2, 3, dtype=torch.int64), "a batch")
    got.sum().backward()
    assert shown == [("a batch", slice(0, 2))]
    got = got.detach()
    for t, b in np.ndindex(2, 3):
        mine, theirs = q.detach()[t, b][legal[t, b]].double(), taught[t, b][legal[t, b]].double() / 0.5
        p, r = (x.exp() / x.exp().sum() for x in (theirs, mine))
        assert float(got[t, b]) == pytest.approx(0.7 * float((p * (p / r).log()).sum()), rel=1e-4, abs=1e-6)
    pi = torch.softmax(taught / 0.5, -1)
    torch.testing.assert_close(q.grad, 0.7 * (q.detach().softmax(-1) - pi))
    assert (q.grad[~legal] == 0).all()
    same = Distillation(Teacher(), 1.0, 1.0)(Values(taught.clone()), torch.zeros(2, 3, dtype=torch.int64), None)
    torch.testing.assert_close(same, torch.zeros(2, 3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["head=quantile", "head.atoms=8", "output=dueling", "replay=prioritized"],
        ["core=gru", "core.hidden=8", "replay.length=4"],
        ["replay=dataset", "learning_starts=0", "train_every=1"],
    ],
    ids=["plain", "other parts", "a core", "recorded data"],
)
def test_a_student_of_other_parts_acts_as_its_teacher(wired, teacher, parts):
    data = [f"replay.path={teacher}"] if "replay=dataset" in parts else []
    run = wired(*SMALL, f"teacher={teacher}", *parts, *data)
    assert run.trainer.evaluate(4)["mean"] < 10
    run.trainer.run()
    assert run.trainer.evaluate(10)["returns"] == [10.0] * 10


def test_the_teacher_is_not_changed_and_is_none_of_the_students_parameters(wired, teacher):
    run = wired(*SMALL, f"teacher={teacher}", "steps=300")
    (term,) = run.trainer.learner.objective.terms
    before = parameter_hash(term.teacher.state_dict())
    assert before == dqn.load(teacher, trust=["worlds"]).parameters_hash
    run.trainer.run()
    assert parameter_hash(term.teacher.state_dict()) == before
    assert not any(name.startswith("teacher") for name in run.trainer.learner.state())
    assert not {id(p) for p in term.teacher.parameters()} & {id(p) for p in run.trainer.learner.parameters}


def test_beside_q_learning_it_is_a_second_loss(wired, teacher):
    """Kickstarting: both are descended, and td_weight and the term's weight say how much each counts."""
    run = wired("terms=distillation", *SMALL[1:], f"teacher={teacher}", "terms.distillation.weight=0.5")
    assert run.trainer.learner.objective.td_weight == 1.0
    run.trainer.run()
    assert run.trainer.evaluate(10)["returns"] == [10.0] * 10


def test_recorded_as_a_program_it_learns_the_same(wired, teacher, recorded_only, caplog):
    """The engine records an update; the teacher's weights are constants in it."""
    learnt = []
    for engine in ("eager", "compile"):
        run = wired(*SMALL, f"teacher={teacher}", "steps=300", f"execution={engine}")
        run.trainer.run()
        learnt.append(run.trainer.learner.online.state_dict())
    torch.testing.assert_close(*learnt, rtol=0, atol=1e-4)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


def test_a_resume_asks_the_teacher_again_from_wherever_it_is_started(tmp_path, teacher):
    """Its path is kept whole, and the resumed run ends with the same parameters."""
    plain = ["execution=eager", "tracking.evaluate_every=0", "tracking.final_episodes=1"]
    plain += ["tracking.checkpoint_every=400", *SMALL, "teacher=run"]
    for name, steps in (("whole", 800), ("cut", 400)):
        code, _, errors = here(train, *plain, f"steps={steps}", f"run.dir={tmp_path / name}", at=teacher.parent)
        assert code == 0, errors
    code, _, errors = here(train, f"resume={tmp_path / 'cut'}", "steps=800", "trust=[worlds]", at=tmp_path)
    assert code == 0, errors
    found = [json.loads((tmp_path / name / "result.json").read_text())["parameter_hash"] for name in ("whole", "cut")]
    assert found[0] == found[1]
    code, _, errors = here(train, f"resume={tmp_path / 'cut'}", "steps=900", "teacher=/other", "trust=[worlds]")
    assert code == 2 and "teacher cannot change in a resumed run" in errors


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["algorithm=distill", *WORLD], "name its directory with teacher=RUN"),
        (["algorithm=distill", *WORLD, "teacher=/nowhere"], "teacher=/nowhere is not a run's directory"),
        (["teacher=TEACHER", *WORLD], "choose algorithm=distill"),
        (["algorithm=distill", "env=cartpole", "teacher=TEACHER"], "choose the environment that it was trained in"),
        (["algorithm=distill", "teacher=TEACHER", *WORLD, "terms.distillation.temperature=0"], "must be > 0"),
    ],
)
def test_what_cannot_teach_is_refused(tmp_path, teacher, overrides, sentence):
    given = [one.replace("TEACHER", str(teacher)) for one in overrides]
    with pytest.raises(UsageError, match=sentence):
        build.run(configure(*given), tmp_path)


def test_a_teacher_that_remembers_is_refused(wired, tmp_path):
    run = wired(*WORLD, "core=gru", "core.hidden=4", "replay.length=4", "steps=20")
    run.trainer.run()
    from dqn.config.resume import stored_text

    cfg = configure(*WORLD, "core=gru", "core.hidden=4", "replay.length=4", "steps=20")
    (run.trainer.directory / "config.yaml").write_text(stored_text(cfg))
    with pytest.raises(UsageError, match="remembers what it saw before"):
        build.run(configure(*SMALL, f"teacher={run.trainer.directory}"), tmp_path)


def test_an_export_shows_the_student_beside_its_teacher(tmp_path, teacher):
    pytest.importorskip("onnxruntime", reason="an export needs the extra export")
    student = tmp_path / "student"
    plain = ["execution=eager", "tracking.evaluate_every=0", "tracking.final_episodes=1"]
    code, _, errors = here(train, *plain, *SMALL, f"teacher={teacher}", f"run.dir={student}")
    assert code == 0, errors
    code, said, errors = here(export, f"run={student}", f"to={tmp_path / 'out'}", "episodes=3", "trust=[worlds]")
    assert code == 0, errors
    found = json.loads((tmp_path / "out" / "export.json").read_text())["distilled"]
    assert found["teacher"]["returns"] == found["student"]["returns"] == [10.0] * 3
    assert found["student"]["equal_actions"] == 1
    assert found["student"]["parameters"] < found["teacher"]["parameters"] / 8
    assert "teacher" in said and f"{found['student']['parameters']:,}" in said


@pytest.mark.gpu
def test_a_gpu_captures_the_teacher_with_the_update(wired, teacher, caplog):
    learnt = []
    for engine in ("eager", "cudagraph"):
        run = wired(*SMALL, f"teacher={teacher}", "steps=150", "device=cuda", f"execution={engine}")
        run.trainer.run()
        learnt.append({name: x.cpu() for name, x in run.trainer.learner.online.state_dict().items()})
    torch.testing.assert_close(*learnt, rtol=0, atol=1e-3)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []
