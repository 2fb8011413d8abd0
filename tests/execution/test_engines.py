"""Engines: the update traced, compiled or captured is the update as written."""

import json
import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import FEW, PRETENDED, RECIPES, here, mostly_slow, some, world

from dqn import train
from dqn.errors import UsageError
from dqn.execution import engines
from dqn.execution.inductor import compiled
from dqn.execution.inductor.rewrites import REWRITES, add_late, keep_small
from dqn.execution.inductor.tracing import trace
from dqn.execution.small import record_small
from dqn.learning.learner import Learner
from dqn.learning.objective import Objective
from dqn.learning.parameter_vector import ParameterVector
from dqn.networks.convs import Residual
from dqn.networks.heads import Expected
from dqn.networks.qnetwork import QNetwork
from dqn.networks.torsos import MLP
from dqn.ops.backups import q_learning
from dqn.ops.transforms import Identity
from dqn.types import Spec

CPU = torch.device("cpu")


def through(trainer):
    """A run with everything between updates that an engine might not notice: rows, lr, syncs, a load."""
    whole, parts, note = trainer.times, (trainer.learner, trainer.memory), trainer.meter.note_update
    episode_info = []

    def hear(stats):
        episode_info.append(stats.double().cpu())
        note(stats)

    trainer.meter.note_update = hear
    trainer.times = replace(whole, steps=whole.steps // 2)
    trainer.run()
    kept = [{name: tensor.clone() for name, tensor in part.state().items()} for part in parts]
    for _ in range(5):
        trainer.update()
    for part, state in zip(parts, kept, strict=True):
        part.load(state)
    trainer.times = whole
    trainer.run()
    return {
        "episode_info": torch.stack(episode_info).mean(0),
        **{k: v.double().cpu() for k, v in trainer.learner.state().items()},
    }


def assert_same(mine, theirs, tolerance):
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        exact = name.startswith("random")
        torch.testing.assert_close(
            tensor, theirs[name], rtol=0, atol=0 if exact else tolerance, msg=lambda says, name=name: f"{name}: {says}"
        )


CHANGING = ["lr_schedule.end=0.1", "lr_schedule.steps=200"]
# steps: with these the last bit, which is a CPU's kernels', decides later, a draw or a tie
LONG = {"btr": 900, "fqf": 150, "r2d2": 600}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_recorded_is_the_recipe_as_written(small, recipe, recorded_only, caplog):
    """Also that an update never asks the device: a tracing has no numbers to answer with."""
    steps = f"steps={min(200, LONG.get(recipe, 200))}"
    as_written = through(small(recipe, "execution=eager", steps, *CHANGING).trainer)
    recording = through(small(recipe, "execution=compile", steps, *CHANGING).trainer)
    assert_same(recording, as_written, 1e-4)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.parametrize("recipe", mostly_slow(RECIPES, ["dqn"]))
def test_every_recipe_compiled_is_the_recipe_as_written(small, recipe, caplog):
    steps = f"steps={LONG.get(recipe, 1000)}"  # 475 updates
    as_written = through(small(recipe, "execution=eager", steps, *CHANGING).trainer)
    program = through(small(recipe, "execution=compile", steps, *CHANGING).trainer)
    assert_same(program, as_written, 1e-3)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["cudagraph", "compile"])
@pytest.mark.parametrize("recipe", some(RECIPES, FEW))
def test_every_recipe_captured_is_the_recipe_as_written(small, recipe, engine, caplog):
    if PRETENDED and engine == "compile":
        pytest.skip("what Triton makes of a graph only a GPU tells")
    given = ["device=cuda", *CHANGING, *["steps=120"] * PRETENDED]
    as_written = through(small(recipe, "execution=eager", *given).trainer)
    captured = through(small(recipe, f"execution={engine}", *given).trainer)
    assert_same(captured, as_written, 1e-3)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.gpu
def test_what_cannot_be_captured_runs_as_written_and_says_where_it_waits(caplog):
    generator, total = torch.Generator("cuda").manual_seed(1), torch.zeros((), device="cuda")

    def step():
        total.add_(torch.rand((), device="cuda", generator=generator))
        return (total * (1.0 if total.item() > 0 else 0.0),)

    program = engines.CUDAGraph(torch.device("cuda"), 0).capture(step)
    sums = [program()[0].item() for _ in range(8)]
    generator.manual_seed(1)
    total.zero_()
    assert sums == [step()[0].item() for _ in range(8)]
    (said,) = [r.message for r in caplog.records if r.name == "dqn"]
    assert "Falling back" in said and "waits for the GPU" in said


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_policy_in_numpy_acts_as_written(small, recipe):
    run = small(recipe, "execution=eager", "tuned.epsilon_end=0.5").trainer
    actor, envs = run.actor, run.collector.num_envs
    if actor.remembered.shape[1]:
        return  # cores stay with torch
    actor.rate.fill_(0.5)
    seen = [torch.randint(10, (envs,), generator=torch.Generator().manual_seed(i)) for i in range(100)]
    before = actor.generator.get_state(), [g.get_state() for g in run.learner.generators]
    policy = actor.policy  # as it is written
    written = [policy(obs, actor.before)[0].tolist() for obs in seen]
    actor.generator.set_state(before[0])
    for generator, state in zip(run.learner.generators, before[1], strict=True):
        generator.set_state(state)
    program = record_small(policy, seen[0], actor.before)
    assert [program(obs.numpy(), actor.before)[0].tolist() for obs in seen] == written
    assert len({str(actions) for actions in written}) > 1
    with torch.no_grad():
        for p in run.learner.parameters:
            p.copy_(-p)  # the same memory is read
    assert [program(obs.numpy(), actor.before)[0].tolist() for obs in seen] != written


def test_what_numpy_does_not_do_or_what_is_large_runs_as_written():
    state = torch.zeros(1)
    eager = engines.auto(CPU, 0)
    assert eager.capture(lambda x: (x + state).sort()[0], small=True)(torch.ones(1)).tolist() == [1.0]
    for step in (lambda x: (x.sort()[0],), lambda x: (x.expand(1 << 20) + 1,)):
        with pytest.raises(ValueError, match=r"in NumPy|is large"):
            record_small(step, torch.ones(1))


def test_two_programs_with_the_same_shapes_are_two_programs(caplog):
    state = torch.zeros(3)
    one = engines.Compiled(CPU, 0).capture(state.add_)
    other = engines.Compiled(CPU, 0).capture(state.mul_)
    for _ in range(2):
        one(torch.full((3,), 2.0))
        other(torch.full((3,), 3.0))
    assert state.tolist() == [24.0] * 3
    assert one(torch.ones(1)).tolist() == [25.0] * 3  # another shape, another program
    assert not [r for r in caplog.records if r.name == "dqn"]  # none of them given up


def test_a_program_knows_its_sizes(caplog):
    """With sizes that are variables a residual block after a max-pool, as in IMPALA's network, is not compiled."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 3, 3, padding=1), torch.nn.MaxPool2d(3, 2, padding=1), Residual(3, False, None)
    )
    parameters = [*network.parameters()]

    def step(images):
        loss = network(images).square().sum()
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    images = torch.rand(4, 4, 10, 10)
    torch.testing.assert_close(engines.Compiled(CPU, 0).capture(step)(images), step(images))
    assert not [r for r in caplog.records if r.name == "dqn"]  # it is not given up


def test_nothing_is_changed_by_a_recording(recorded_only):
    count, kept, copied = torch.zeros(1), torch.ones(3), torch.full((3,), 2.0)

    def step():  # operations that meet nothing but what the step refers to
        count.add_(1)
        kept.copy_(copied)
        kept.mul_(copied)
        return count, kept.view(3)

    program = compiled.record(step, None)
    assert (count.tolist(), kept.tolist()) == ([0], [1, 1, 1])
    results = program()
    assert [x.tolist() for x in results] == [count.tolist(), kept.tolist()] == [[1], [4, 4, 4]]


@pytest.mark.parametrize(
    ("inputs", "outputs", "products"),
    [
        (4, 16, [[8, 4], [8, 16], [4, 8]]),  # forward, the input's gradient, the weight's the other way round
        (32, 16, [[8, 32], [8, 16], [16, 8]]), (16, 16, [[8, 16], [8, 16], [16, 8]]),
        (16, 2, [[2, 8]]),  # few outputs: the others are sums
        (4, 2, [[8, 2], [2, 8]]),  # few terms for few outputs: nothing to gain
    ],
)  # fmt: skip
def test_products_are_rewritten_for_a_cpu(inputs, outputs, products):
    layer, x = torch.nn.Linear(inputs, outputs), torch.randn(8, inputs, requires_grad=True)

    def step(x):
        y = layer(x)
        return y, *torch.autograd.grad(y.square().sum(), [layer.weight, layer.bias, x])

    graph, _, states = trace(step, None, x, rewrites=REWRITES)
    torch.testing.assert_close(graph(*states, x), step(x))
    left = [n for n in graph.graph.nodes if n.target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)]
    assert [list(n.args[-2].meta["val"].shape) for n in left] == products


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_a_product_of_few_rows_the_other_way_round(threads):
    layer, x = torch.nn.Linear(1024, 512), torch.randn(8, 1024, requires_grad=True)

    def step(x):
        y = layer(x)
        return y, *torch.autograd.grad(y.square().sum(), [layer.weight, layer.bias, x])

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        graph, _, states = trace(step, None, x, rewrites=REWRITES)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(graph(*states, x), step(x))
    left = [n for n in graph.graph.nodes if n.target in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)]
    shapes = [list(n.args[-2].meta["val"].shape) for n in left]
    turned = [[512, 1024], [1024, 512]]  # forward, and the input's gradient; not the weight's
    assert shapes == [*(turned if threads > 1 else [[8, 1024], [8, 512]]), [512, 8]]


def test_a_quotient_by_a_number_is_a_product_and_by_a_tensor_is_not():
    x, y, number, larger = torch.rand(5), torch.rand(5), torch.rand(()), torch.rand(5)

    def step(x, y, number, larger):
        one, other = [x.clone()], [y.clone()]
        torch._foreach_div_(one, [number])
        torch._foreach_div_(other, [larger])
        return one[0], other[0]

    graph, _, _ = trace(step, None, x, y, number, larger, rewrites=REWRITES)
    torch.testing.assert_close(graph(x, y, number, larger), step(x, y, number, larger))
    assert [n.target for n in graph.graph.nodes].count(torch.ops.aten._foreach_div_.List) == 1


@pytest.mark.parametrize("shape", [(8, 16), (1, 8, 16)])  # of a batch of sequences the rows are seen in a row
@pytest.mark.parametrize(("follows", "late"), [(torch.relu, 1), (torch.square, 0)])
def test_a_bias_is_added_late_by_a_relu_and_by_nothing_else(follows, late, shape):
    layer, x = torch.nn.Linear(16, 16), torch.randn(shape)

    def step(x):
        return follows(layer(x))

    graph, _, states = trace(step, None, x, rewrites=REWRITES)
    add_late(graph.graph)
    graph.recompile()
    torch.testing.assert_close(graph(*states, x), step(x))
    assert len([n for n in graph.graph.nodes if n.target is torch.ops.aten.mm.default]) == late


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(("count", "left"), [(1, 1), (3, 1), (20, 4)])
def test_places_among_a_few_whole_numbers_are_sums(count, left, right):
    counts, x, real = torch.randint(0, 5, (count,)), torch.arange(-1, 59).reshape(2, 30), torch.rand(3)

    def step(counts, x, real):
        return torch.searchsorted(counts.cumsum(0), x, right=right), (counts > 2).cumsum(0), real.cumsum(0)

    graph, _, _ = trace(step, None, counts, x, real, rewrites=REWRITES)
    assert all(map(torch.equal, graph(counts, x, real), step(counts, x, real)))
    calls = [n.target for n in graph.graph.nodes]
    assert calls.count(torch.ops.aten.searchsorted.Tensor) + calls.count(torch.ops.aten.cumsum.default) == left


@pytest.mark.parametrize(
    ("shape", "dim", "dtype", "left"),
    [
        ((5, 16), -1, torch.float64, 0), ((5, 2), 1, torch.float64, 0), ((8,), 0, torch.float64, 0),
        ((5, 3), -1, torch.float64, 1), ((5, 32), -1, torch.float64, 1), ((5, 16), -1, torch.float32, 1),
        ((16, 5), 0, torch.float64, 1), ((2, 16), (0, 1), torch.float64, 1), ((2, 16), None, torch.float64, 1),
    ],
)  # fmt: skip
def test_few_large_floats_in_a_row_are_summed_by_halves(shape, dim, dtype, left):
    x = torch.rand(shape, dtype=dtype)

    def step(x):
        return torch.sum(x, dim), torch.sum(x, dim, keepdim=True)

    graph, _, _ = trace(step, None, x, rewrites=REWRITES)
    torch.testing.assert_close(graph(x), step(x))
    assert [n.target for n in graph.graph.nodes].count(torch.ops.aten.sum.dim_IntList) == left + 1  # keepdim stays


def test_a_number_that_larger_tensors_are_made_of_is_kept_and_no_other():
    x, y, state = torch.rand(5), torch.rand(()), torch.rand(3)

    def step(x, y, state):
        changed = [y.cos()]
        torch._foreach_add_(changed, 1.0)
        larger = [x.clone()]
        torch._foreach_mul_(larger, [y.sin()])
        state[0].mul_(2)  # a number that is seen in an input, and changed there
        return x * y.exp(), y.sqrt() + 1, *changed, *larger, x + state[0]

    graph, _, _ = trace(step, None, x, y, state)
    keep_small(graph.graph)
    kept = [n.args[0].target for n in graph.graph.nodes if n.target is torch.ops.aten.as_strided.default]
    assert kept == [torch.ops.aten.sin.default, torch.ops.aten.exp.default]
    graph.recompile()
    torch.testing.assert_close(graph(x, y, state.clone()), step(x, y, state.clone()))


@pytest.mark.parametrize(("width", "kept"), [(16, 1), (4, 0)])
def test_the_places_of_long_rows_are_kept_and_of_short_ones_not(width, kept):
    """Else a place is worked out, its remainder and all, for every eight numbers of the row that lies there."""
    table, at, known = torch.rand(10, width), torch.arange(12).reshape(3, 4), torch.tensor([3, 1])

    def step(table, at, known):
        read = table.index_select(0, ((at * 3 + 1) % 10).flatten()).unflatten(0, at.shape)
        return read.sum(1) + 1, table.index_select(0, known) * 2  # of the second they are an input

    graph, _, _ = trace(step, None, table, at, known)
    keep_small(graph.graph)
    aten = torch.ops.aten
    assert [n.args[0].target for n in graph.graph.nodes if n.target is aten.as_strided.default] == (
        [aten.remainder.Scalar] * kept
    )
    graph.recompile()
    torch.testing.assert_close(graph(table, at, known), step(table, at, known))


def test_draws_are_those_of_the_step_as_written():
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]

    def draw(generator):
        shuffled = torch.randperm(7, generator=generator)
        return shuffled, torch.rand(4, generator=generator) + torch.randn(4, generator=generator)

    program = engines.Compiled(CPU, 0).capture(lambda: draw(generators[0]))
    for _ in range(3):
        assert all(map(torch.equal, program(), draw(generators[1])))
    assert torch.equal(*(g.get_state() for g in generators))


DRAWS = {
    "multinomial": lambda g: torch.multinomial(torch.ones(4), 3, generator=g),
    "random_": lambda g: torch.empty(3).random_(5, generator=g),
    "uniform_": lambda g: torch.empty(3).uniform_(2, 5, generator=g),
    "normal": lambda g: torch.normal(torch.zeros(3), torch.ones(3), generator=g),
    "bernoulli": lambda g: torch.bernoulli(torch.full((3,), 0.5), generator=g),
    "rand_like": lambda g: torch.rand_like(torch.zeros(3)),
    "dropout": lambda g: torch.nn.functional.dropout(torch.ones(9), 0.5),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("small", [True, False])
def test_whatever_a_part_draws_with_is_drawn_as_written(name, small):
    state = torch.zeros(1)

    def three(capture):
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(1)
        step = capture(lambda: (DRAWS[name](generator) + state,))
        return [torch.as_tensor(step()[0]).tolist() for _ in range(3)]

    written = three(lambda step: step)
    assert len({str(drawn) for drawn in written}) > 1
    assert three(lambda step: engines.Compiled(CPU, 0).capture(step, small=small)) == written


@pytest.mark.parametrize("where", ["tracing", "compiling"])
def test_what_cannot_be_prepared_runs_as_written_and_says_why_once(where, caplog, monkeypatch):
    generator, asked = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    seen = torch.zeros(2)

    def step():
        seen.add_(torch.rand(2, generator=generator))
        if where == "tracing":
            float(seen.sum())  # asks the device
        return seen.clone()

    def broken(graph, inputs):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(compiled, "compile_graph", broken)
    program = engines.Compiled(CPU, 0).capture(step)
    with caplog.at_level(logging.WARNING, "dqn"):
        results = [program() for _ in range(3)]
    draws = torch.stack([torch.rand(2, generator=asked) for _ in range(3)])
    torch.testing.assert_close(torch.stack(results), draws.cumsum(0))
    assert len([r for r in caplog.records if "Falling back" in r.message]) == 1
    if where == "compiling":
        assert caplog.records[-1].message.endswith("no compiler")


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.Adam(p, 0.1, fused=True, weight_decay=0.1), lambda p: torch.optim.RAdam(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.1),
        lambda p: torch.optim.RMSprop(p, 0.1, centered=True, momentum=0.5), lambda p: torch.optim.Adam(p, 0.1, eps=0.0),
        lambda p: torch.optim.NAdam(p, 0.1), lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.5),
        lambda p: torch.optim.Rprop(p, 0.1), lambda p: torch.optim.Adam(p, 0.1, amsgrad=True, foreach=True),
    ],
)  # fmt: skip
def test_an_optimizer_whose_tensors_exist_from_the_start_takes_the_same_steps(optimizer):
    torch.manual_seed(0)
    spec = Spec((3,), torch.zeros(0).numpy().dtype, 2)
    online = QNetwork(torso := MLP(spec, [4]), Expected(torso.features, 2))
    begin = [p.detach().clone().requires_grad_() for p in online.parameters()]
    learner = Learner(online, Objective(q_learning, Identity()), optimizer)
    assert all(map(torch.equal, begin, learner.parameters))
    vector = ParameterVector(begin)
    theirs = optimizer([vector.vector])
    for _ in range(4):
        grads = [torch.randn_like(p) for p in begin]
        learner._step(grads)
        vector.vector.grad = vector.flat(grads)
        theirs.step()
    assert all(map(torch.equal, begin, learner.parameters))


@pytest.fixture
def clock(monkeypatch, recorded_only):
    """A machine on which an update takes 5 ms and its products 0.5 ms; to compile takes 28 s, from the cache 4 s."""
    now = [0.0]

    def tick():
        now[0] += 0.005
        return now[0]

    monkeypatch.setattr(engines, "process_time", tick)
    monkeypatch.setattr(engines.measure, "products", lambda step, args: (step(*args), 0.0005))
    monkeypatch.setattr(engines.measure, "slowness", lambda: 1.0)
    monkeypatch.setattr(engines.measure, "note_program", lambda key: None)
    monkeypatch.setattr(engines.measure, "PRICES", {"cold": 28.0, "cached": 4.0})


@pytest.mark.parametrize(
    ("calls", "in_cache", "chosen", "why"),
    [
        (7100, False, "compile", "an update takes 5.0 ms, its matrix products 0.5; for the 7,075 that are left it "
                                 "would save 28 s to compile in 28 s"),
        (6900, False, "eager", "would save 28 s to compile in 28 s"),
        (6900, True, "compile", "would save 28 s to load it, compiled before, in 4 s"),
        (1100, True, "compile", "would save 4 s to load it"),
        (900, True, "eager", "would save 4 s to compile in 28 s"),
        (10, False, "eager", "for the 0 that are left it would save 0 s"),
    ],
)  # fmt: skip
def test_auto_compiles_where_that_saves_more_than_it_costs(clock, monkeypatch, calls, in_cache, chosen, why):
    """Each update that is left after the first 25 saves 5 − 2 · 0.5 ms."""
    monkeypatch.setattr(engines, "cached", lambda *args: in_cache)
    engine, total = engines.auto(CPU, calls), torch.zeros(1)
    step = engine.capture(lambda x: (total.add_(x) + 0,), object())
    for k in range(engines.UNTIMED + engines.TIMED):
        assert engine.chosen is None
        assert step(torch.ones(1))[0] == k + 1
    assert engine.chosen == chosen and engine.why.startswith(f"{chosen} (auto: ") and why in engine.why


def test_a_choice_is_kept(clock):
    engine = engines.auto(CPU, 10)
    engine.choose("compile")
    step = engine.capture(lambda x: (x + 1,), object())
    assert step(torch.ones(1))[0] == 2 and engine.count == 0
    assert engine.why == "compile (auto: as this run chose before)"
    fixed = engines.Eager(CPU, 10)
    fixed.choose("compile")
    assert fixed.chosen is None and fixed.why == "eager (asked for)"


def test_a_program_is_known_behind_its_first_compilation(monkeypatch, tmp_path, recorded_only):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    (tmp_path / "fxgraph").mkdir()
    weight, other = torch.ones(3), torch.ones(4)
    steps = [lambda x: (x * weight,), lambda x: (x + weight,), lambda x: (x * other,)]
    args = [torch.ones(3), torch.ones(3), torch.ones(4)]
    assert not any(compiled.cached(step, None, x) for step, x in zip(steps, args, strict=True))
    compiled.record(steps[0], None, args[0])
    assert [compiled.cached(step, None, x) for step, x in zip(steps, args, strict=True)] == [True, False, False]
    assert compiled.cached(lambda x: (x * weight,), None, torch.ones(3))
    (tmp_path / "fxgraph").rmdir()  # torch's cache was emptied
    assert not compiled.cached(steps[0], None, args[0])


def test_a_run_records_its_choice_and_a_resume_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "TIMED", 3)
    monkeypatch.setattr(engines.measure, "PRICES", {"cold": 0.0, "cached": 0.0})
    monkeypatch.setattr(compiled, "compile_graph", lambda graph, inputs: lambda given: graph.forward(*given))
    given = ["execution=auto", "steps=300", "learning_starts=100", "torso.hidden=[8]", "tracking.final_episodes=1",
             f"run.dir={tmp_path}/run", "tracking.evaluate_every=0"]  # fmt: skip
    code, out, errors = here(train, *given)
    assert code == 0, errors
    assert "auto: measures 8 updates" in out and "Engine: compile (auto: an update takes" in out
    assert json.loads((tmp_path / "run/result.json").read_text())["engine"].startswith("compile (auto: an update")
    monkeypatch.setattr(engines.measure, "PRICES", {"cold": 1e9, "cached": 1e9})
    code, out, errors = here(train, f"resume={tmp_path}/run", "steps=400")
    assert code == 0, errors
    assert "Engine:" not in out
    engine = json.loads((tmp_path / "run/result.json").read_text())["engine"]
    assert engine == "compile (auto: as this run chose before)"


def test_no_compiler_is_said(monkeypatch, wired):
    monkeypatch.setattr(engines, "compiler_missing", lambda: "no C++ compiler")
    assert engines.auto(CPU, 10**9).why == "eager (auto: no C++ compiler)"
    run = wired(*world("test/OneState-v0", "steps=20", "execution=cudagraph", "device=cpu"))
    assert "engine eager (cudagraph needs a GPU, not cpu)" in run.summary


class Keeps:
    """Steps of a user's part that keep something between calls."""

    def __init__(self):
        self.calls, self.weight = 0, torch.ones(3)

    def number(self, x):
        self.calls += 1
        return (x * self.calls**-0.5,)

    def made_tensor(self, x):
        self.calls += 1
        return (x * torch.tensor(float(self.calls)),)

    def other_tensor(self, x):
        self.weight = self.weight * 2
        return (x * self.weight,)

    def constant(self, x):
        self.calls += 1
        return (x * torch.tensor([1.0, 2.0, 3.0]),)

    def in_place(self, x):
        self.weight.mul_(2)
        return (x * self.weight,)


@pytest.mark.parametrize("small_one", [False, True])
@pytest.mark.parametrize(
    ("kind", "frozen"), [("number", True), ("made_tensor", True), ("constant", False), ("in_place", False)]
)
def test_what_a_part_keeps_in_python_is_never_frozen(kind, frozen, small_one, recorded_only, caplog):
    """A tracing would repeat the first call's number for ever; such a step runs eagerly, and the log says so."""
    x, keeps = torch.ones(3), Keeps()
    written = getattr(Keeps(), kind)
    step = engines.Compiled(CPU, 0).capture(lambda x: getattr(keeps, kind)(torch.as_tensor(x)), small=small_one)
    before = torch.as_tensor(step(x)[0]).clone()
    keeps.calls = 1  # recordings count, too
    for expected in [written(x)[0].clone(), *(written(x)[0].clone() for _ in range(3))][1:]:
        assert torch.equal(torch.as_tensor(step(x)[0]), expected)
    assert torch.equal(before, getattr(Keeps(), kind)(x)[0]) or frozen
    assert any("in Python" in r.message for r in caplog.records) == (frozen and not small_one)


def test_a_policy_that_is_too_much_for_numpy_is_compiled():
    """Convolutions, say: for arrays as for tensors, by the weights of the moment, with the same draws."""
    layer, generators = torch.nn.Conv2d(1, 3, 3), [torch.Generator().manual_seed(0) for _ in range(2)]

    def policy(generator, obs, state):
        seen = layer(torch.as_tensor(obs)).mean((2, 3)) + torch.rand(2, 3, generator=generator)
        return seen.argmax(1), state + seen

    with torch.no_grad():
        program = engines.Compiled(CPU, 0).capture(partial(policy, generators[0]), small=True)
        for _ in range(3):
            obs, state = torch.rand(2, 1, 5, 5), torch.rand(2, 3)
            torch.testing.assert_close(program(obs.numpy(), state), policy(generators[1], obs, state))
            layer.weight.mul_(1.5)
    (ready,) = program.ready.values()
    assert ready is not program.step


@pytest.mark.parametrize("small_one", [False, True])
def test_a_part_that_replaces_a_tensor_is_told_to_change_it_in_place(small_one, recorded_only):
    step = engines.Compiled(CPU, 0).capture(Keeps().other_tensor, small=small_one)
    with pytest.raises(UsageError, match="change it in place, as with copy_, or set execution=eager"):
        step(torch.ones(3))
