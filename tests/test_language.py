"""A run on a language model from its command to its end: it learns, is saved, continues exactly, is loaded."""

import numpy as np
import pytest
import torch
from conftest import LANGUAGE, configure, here
from hydra import compose, initialize_config_dir
from language import lines, tiny

import dqn
from dqn import evaluate, train
from dqn.config import build
from dqn.config.cli import CONF
from dqn.config.schema import check
from dqn.seeding import parameter_hash
from dqn.tracking.checkpoint import Checkpoints
from dqn.tracking.logger import start_text_log

SMALL = ["env=lm", "env.score=language:good", "env.candidates=8", "env.num_envs=4", "env.max_tokens=4",
         "env.limit=terminate", "steps=600", "learning_starts=200", "train_every=8", "tuned.batch_size=8",
         "tuned.capacity=1000", "tuned.lr=0.01", "tuned.temperature=0.05", "tuned.target_period=50",
         "gamma=0.9"]  # fmt: skip


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Options that name the tiny model and a file of prompts."""
    folder = tmp_path_factory.mktemp("llama")
    prompts = lines(tmp_path_factory.mktemp("prompts") / "p.txt", "a b", "c d e", "f")
    return [f"env.model={tiny(folder)}", f"env.prompts={prompts}"]


@pytest.fixture
def wire(where, tmp_path):
    runs = []

    def make(recipe, *more):
        start_text_log(None)
        directory = tmp_path / f"run{len(runs)}"
        directory.mkdir()
        runs.append(build.run(configure(f"algorithm={recipe}", *SMALL, *where, *more), directory))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def reached(run):
    return run.trainer.evaluate(episodes=64)["mean"]


@pytest.mark.parametrize("recipe", [name for name in LANGUAGE if name not in ("lm_offline", "lm_clone")])
def test_a_recipe_learns_to_say_more_of_what_is_rewarded(wire, recipe):
    run = wire(recipe)
    before = reached(run)
    run.trainer.run()
    after = reached(run)
    assert all(p.isfinite().all() for p in run.trainer.learner.parameters)
    assert after > before + 0.2, (before, after)


RETURNS = ["output.rank=8", "lambda_=null", "n_step=4", "replay.length=1", "tuned.quantiles=5"]
PAIRS = {  # every head and every backup, each once at least
    "munchausen": ["head=expected"], "double_q": ["head=hl_gauss", "head.bins=11", "output.rank=8"],
    "kl_soft": ["head=quantile", *RETURNS], "expected_sarsa": ["head=categorical", *RETURNS],
    "soft": ["head=quantile", *RETURNS],
}  # fmt: skip


@pytest.mark.parametrize("backup", PAIRS)
def test_every_head_and_every_backup_goes_with_a_language_model(wire, backup):
    run = wire("lm_mc", f"backup={backup}", "steps=250", *PAIRS[backup])
    run.trainer.run()
    assert run.trainer.updates > 5
    assert all(p.isfinite().all() for p in run.trainer.learner.parameters)


def test_no_checkpoint_holds_the_language_model(wire):
    run = wire("lm_mc", "steps=300")
    run.trainer.run()
    saved = Checkpoints(run.trainer.directory / "checkpoints").load().tensors
    names = [name for name in saved if name.startswith("learner/online/")]
    assert sorted(name.rpartition(".")[2] for name in names) == ["bias", "matrix", "norms", "weight"]
    assert not any(tuple(tensor.shape) == (30, 16) for tensor in saved.values())


def test_a_run_that_was_stopped_continues_as_if_it_had_not_been(where, tmp_path):
    """The language model's texts, the luck of the actions and the learner: bit for bit."""
    hashes = {}
    for name, stops in (("whole", [600]), ("cut", [330, 600])):
        directory = tmp_path / name
        directory.mkdir()
        for stop in stops:
            more = [f"steps={stop}", *([f"resume={directory}", "trust=[language]"] if stop != stops[0] else [])]
            given = ["algorithm=lm_mc", "execution=eager", *SMALL, *where, "tracking.final_episodes=2"]
            words = more if len(more) > 1 else [*given, *more, f"run.dir={directory}"]
            code, _, errors = here(train, *words)
            assert code == 0, errors
        state = Checkpoints(directory / "checkpoints").load().tensors
        hashes[name] = parameter_hash({k: v for k, v in state.items() if k.startswith(("learner/", "memory/"))})
    assert hashes["whole"] == hashes["cut"]


def test_what_was_trained_is_evaluated_and_loaded(where, tmp_path):
    run = tmp_path / "run"
    given = ["algorithm=lm_mc", "execution=eager", *SMALL, *where, "tracking.final_episodes=2", f"run.dir={run}"]
    assert here(train, *given)[0] == 0
    code, _, errors = here(evaluate, f"run={run}", "episodes=4")
    assert code == 2 and "trust=[language]" in errors  # the score is code of one's own
    code, said, errors = here(evaluate, f"run={run}", "episodes=4", "trust=[language]")
    assert code == 0 and "4 episodes" in said, errors
    agent = dqn.load(str(run), trust=["language"])
    obs = build.parts.environments(agent.cfg).reset(0)
    assert agent.act(obs[:1]).shape == (1,) and np.isfinite(agent.q(obs[0])).all()


def test_only_tokens_of_the_text_have_a_gradient(wire):
    """Rows that were no decision, and what a sequence finds after a text's end, change no gradient at all."""
    run = wire("lm_mc", "steps=250", "learning_starts=200", "replay.length=6")
    run.trainer.run()
    learner, memory = run.trainer.learner, run.trainer.memory
    batch = memory.sample()
    assert (batch.weight == 0).any() and (batch.weight > 0).any()

    def gradient():
        loss = learner.objective(learner.online, learner.target, batch)
        return torch.autograd.grad(loss.total, learner.parameters)

    before = gradient()
    batch.obs[: len(batch.action)][batch.weight == 0] = 0
    batch.action[batch.weight == 0] = 3
    assert all(map(torch.equal, before, gradient()))
    batch.obs[: len(batch.action)][batch.weight > 0] = 0
    assert not all(map(torch.equal, before, gradient()))


def test_the_experiment_is_one_of_the_recipes_on_a_task(wire, where):
    pytest.importorskip("vaderSentiment")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["experiment=lm_sentiment", where[0], "run.dir=unused"])
    assert (cfg.env.task, cfg.lambda_, cfg.replay.length) == ("sentiment", 1.0, 16)
    assert cfg.exploration.temperature == cfg.tuned.temperature == 0.05
    check(cfg)


def test_what_needs_a_given_policy_is_refused_where_there_is_none():
    code, _, errors = here(train, "env=chain", "backup=kl_soft")
    assert code == 2 and "backup=kl_soft" in errors and "env=lm" in errors, errors
