"""The tensor MinAtar games are minatar's, step for step, when both are given the same random numbers."""

from collections import Counter

import numpy as np
import pytest
import torch

from dqn.envs.tensor.minatar import GAMES
from dqn.envs.tensor.minatar_seaquest import LEVELS, Seaquest
from dqn.envs.tensor.minatar_seaquest_enemies import ENEMIES, RELOAD
from dqn.envs.tensor.minatar_space_invaders import SpaceInvaders
from dqn.errors import UsageError
from dqn.execution import engines

CPU = torch.device("cpu")
MINIMAL = {"asterix": "nlurd", "breakout": "nlr", "freeway": "nud", "seaquest": "nlurdf", "space_invaders": "nlrf"}
NAMES = sorted(GAMES)
E = 8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(tensors, rows):
    return {name: tensor[rows] for name, tensor in tensors.items()}


def chosen(done, fresh, state):
    """Where an episode ended, the next one's first state."""
    return {k: torch.where(done.view(-1, *[1] * (v.dim() - 1)), fresh[k], v) for k, v in state.items()}


class EpisodeInfo:
    """A RandomState that answers with given numbers, in the given order."""

    def __init__(self):
        self.answers = []

    def rand(self, *shape):
        answer = self.answers.pop(0)
        assert np.shape(answer) == shape
        return answer

    def randint(self, low, high=None, size=None):
        answer = self.answers.pop(0)
        low, high = (0, low) if high is None else (low, high)
        if callable(answer):  # it hangs on how many there are to choose from
            answer = answer(high - low)
        assert np.shape(answer) == (() if size is None else (size,))
        assert np.all((answer >= low) & (answer < high))
        return answer


def row_answer(u):
    return 1 + int(np.floor(np.float32(8) * u))


def slot_answer(u):
    return lambda n: min(int(np.floor(u * np.float32(n))), n - 1)


def asks(name, game, draw):
    """What the reference is about to ask for in a step, if it comes to it, in its order, from our draws."""
    if name == "asterix" and game.spawn_timer == 0:
        return [draw["right"], draw["gold"], *([slot_answer(draw["row"])] if None in game.entities else [])]
    if name == "seaquest":
        enemy = [draw["enemy_right"], draw["enemy_sub"], row_answer(draw["enemy_row"])]
        diver = [draw["diver_right"], row_answer(draw["diver_row"])]
        return [*(enemy if game.e_spawn_timer == 0 else []), *(diver if game.d_spawn_timer == 0 else [])]
    if name == "freeway":
        return [draw["pace"].copy(), draw["right"]]
    return []


class Reference:
    """One environment of minatar with its own sticky actions, told what our draws say."""

    def __init__(self, name, ramping):
        pytest.importorskip("minatar")
        from minatar import Environment

        self.name, self.episode_info = name, EpisodeInfo()
        self.world = Environment(name, sticky_action_prob=0.1, difficulty_ramping=ramping)
        self.game = self.world.env
        self.world.random = self.game.random = self.episode_info

    def reset(self, draw):
        self.episode_info.answers = asks("freeway", self.game, draw) if self.name == "freeway" else []
        if self.name == "breakout":
            self.episode_info.answers = [int(draw["side"] >= 0.5)]
        self.world.last_action = 0  # there it outlives the episode
        self.world.reset()
        assert not self.episode_info.answers

    def step(self, action, draw):
        self.episode_info.answers = [draw["sticky"], *asks(self.name, self.game, draw)]
        action = self.world.minimal_action_set()[action]
        reward, terminal = self.world.act(action)
        assert not self.episode_info.answers or self.name == "freeway"  # who asks only when the top is reached
        return reward, terminal


def numbers(draws, e):
    return {name: tensor[e].numpy() for name, tensor in draws.items()}


def tick(mine, state, theirs, action, draws):
    """One step of both from the same state, and the same comes of it: reward, end and picture."""
    state, reward, done = mine.advance(state, action, draws)
    episode_info = [reference.step(int(action[e]), numbers(draws, e)) for e, reference in enumerate(theirs)]
    assert reward.tolist() == [float(r) for r, _ in episode_info]
    assert done.tolist() == [bool(end) for _, end in episode_info]
    assert_seen(mine, state, theirs)
    return state, reward.tolist(), done


def assert_seen(mine, state, theirs):
    np.testing.assert_array_equal(mine.observe(state).numpy(), np.stack([one.world.state() for one in theirs]))


def compare(name, steps, policy, seen, *, ramping=True, immortal=False, seed=0):
    """Step for step the same pictures, rewards and ends. `immortal`: both go on after an end as if there was none;
    `policy(game, rng)` → an action for one reference game; `seen(game, reward)` → names of what just happened."""
    mine, theirs = GAMES[name](0.1, ramping), [Reference(name, ramping) for _ in range(E)]
    draw, rng, happened = generator(seed), np.random.default_rng(seed), Counter()
    draws = mine.draw(E, draw, CPU)
    state = mine.begin(draws)
    for e, reference in enumerate(theirs):
        reference.reset(numbers(draws, e))
    assert_seen(mine, state, theirs)
    for _ in range(steps):
        action = torch.tensor([policy(reference.game, rng) for reference in theirs])
        state, reward, done = tick(mine, state, theirs, action, mine.draw(E, draw, CPU))
        for r, end, reference in zip(reward, done.tolist(), theirs, strict=True):
            happened.update([*["end"] * end, *["reward"] * bool(r), *seen(reference.game, r)])
        if immortal:
            for reference in theirs:
                reference.game.terminal = False
        elif done.any():
            draws = mine.draw(E, draw, CPU)
            state = chosen(done, mine.begin(draws), state)
            for e in done.nonzero().flatten().tolist():
                theirs[e].reset(numbers(draws, e))
            assert_seen(mine, state, theirs)
    return happened


def at_random(name):
    return lambda game, rng: int(rng.integers(len(MINIMAL[name])))


def mostly(name, best):
    """best(game) → a letter of the action, taken four times in five; else, and where it has none, any action."""

    def policy(game, rng):
        letter = best(game) if rng.random() < 0.8 else None
        return MINIMAL[name].index(letter) if letter else int(rng.integers(len(MINIMAL[name])))

    return policy


def towards(here, there, less, more):
    return less if there < here else more if there > here else None


def nothing(game, reward):
    return ()


@pytest.mark.parametrize("ramping", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_random_play_is_minatars_step_for_step(name, ramping):
    immortal = not ramping and name != "breakout"  # else nothing would ramp in so short episodes
    happened = compare(name, 600, at_random(name), nothing, ramping=ramping, immortal=immortal, seed=1)
    assert happened["end"] or name == "freeway"
    assert happened["reward"]


def test_breakout_until_the_bricks_are_gone_and_come_back():
    """The paddle is where the ball will come down, or one further: off a corner it flies back."""

    def policy(game, rng):
        dx, down = 1 if game.ball_dir in (1, 2) else -1, game.ball_dir in (2, 3)
        ahead = (game.ball_x + dx * (8 - game.ball_y + rng.integers(2)) if down else game.ball_x) % 20
        return MINIMAL["breakout"].index(towards(game.pos, min(ahead, 19 - ahead), "l", "r") or "n")

    def seen(game, reward):
        bricks, was = np.count_nonzero(game.brick_map), left.get(game, 30)
        left[game] = bricks
        if was == 0:
            yield "new wall" if not game.terminal and bricks == 30 else "no wall"
        if game.last_y == 0:
            yield "ceiling"

    left = {}
    happened = compare("breakout", 2500, policy, seen)
    assert happened["no wall"] and happened["new wall"] and happened["ceiling"] and happened["end"]


def test_asterix_up_to_the_last_level():
    def seen(game, reward):
        yield f"level {game.ramp_index}"
        if None not in game.entities:
            yield "full"

    happened = compare("asterix", 1200, at_random("asterix"), seen, immortal=True)
    assert happened["level 9"] > 100 * E
    assert happened["full"] and happened["reward"] and happened["end"]


def test_freeway_across_the_road_and_until_time_is_up():
    def seen(game, reward):
        if game.pos == 9 and was.get(game, 9) < 8 and not reward:
            yield "hit"
        was[game] = game.pos

    was = {}
    happened = compare("freeway", 2600, mostly("freeway", lambda game: "u"), seen)
    assert happened["reward"] > E and happened["hit"] > E and happened["end"] == E


def test_space_invaders_wave_after_wave():
    def seen(game, reward):
        yield f"interval {game.enemy_move_interval}"
        if game.terminal and game.alien_map[0].any() and game.alien_map.sum() < 20:
            yield "over the bottom"

    policy = mostly("space_invaders", lambda game: None if game.shot_timer else "f")
    happened = compare("space_invaders", 2000, policy, seen, immortal=True)
    assert happened["interval 6"] and happened["over the bottom"]


def begun(mine, theirs, draw, rng, fill):
    """Episodes begun alike, then filled alike by fill(rng, game, state, e)."""
    draws = mine.draw(E, draw, CPU)
    state = mine.begin(draws)
    for e, reference in enumerate(theirs):
        reference.reset(numbers(draws, e))
        fill(rng, reference.game, state, e)
    assert_seen(mine, state, theirs)
    return state


@pytest.mark.parametrize("ramping", [True, False])
def test_space_invaders_from_anywhere(ramping):
    """From any positions of all there is, with many aliens or with one that is about to be shot."""
    mine, theirs = SpaceInvaders(0.1, ramping), [Reference("space_invaders", ramping) for _ in range(E)]
    rng, draw, rewards = np.random.default_rng(0), generator(), Counter()
    for _ in range(125):
        state = begun(mine, theirs, draw, rng, anywhere)
        for _ in range(4):
            state, reward, _ = tick(
                mine, state, theirs, torch.from_numpy(rng.integers(4, size=E)), mine.draw(E, draw, CPU)
            )
            rewards.update(reward)
            for reference in theirs:
                reference.game.terminal = False
        assert state["interval"].tolist() == [reference.game.enemy_move_interval for reference in theirs]
        assert (state["count"] == state["aliens"].sum((1, 2))).all()
    assert rewards[2.0] > 50


def anywhere(rng, game, state, e):
    """Fill both skies alike."""
    game.alien_map, game.f_bullet_map, game.e_bullet_map = (
        (rng.random((10, 10)) < rng.choice([0, 0.02, 0.2])).astype(float) for _ in range(3)
    )
    row, column = rng.integers([8, 10])
    game.alien_map[row, column], game.f_bullet_map[row + 1, column], game.f_bullet_map[9] = 1, 1, 0
    game.pos, game.shot_timer, game.alien_move_timer, game.alien_shot_timer = (
        int(n) for n in rng.integers([0, 0, 0, 0], [10, 5, 2, 2])
    )
    game.alien_dir, game.enemy_move_interval = int(rng.choice([-1, 1])), int(rng.integers(6, 13))
    names = {"x": "pos", "way": "alien_dir", "reload": "shot_timer", "move": "alien_move_timer",
             "fire": "alien_shot_timer", "interval": "enemy_move_interval"}  # fmt: skip
    for name, theirs in names.items():
        state[name][e] = getattr(game, theirs)
    for name, sky in (("aliens", game.alien_map), ("shots", game.f_bullet_map), ("bombs", game.e_bullet_map)):
        state[name][e] = torch.from_numpy(sky > 0).to(torch.uint8)
    state["count"][e] = state["aliens"][e].sum()


def test_seaquest_up_to_the_last_level():
    """The player looks for divers, comes up with six or when short of oxygen, and up and down while that is free."""

    def best(game):
        if game.diver_count < 0 or game.diver_count == 6 or (game.oxygen < 30 and game.diver_count):
            return "d" if game.sub_y == 0 else "u"
        if not game.divers:
            return "d" if game.sub_y == 0 else None
        x, y = game.divers[0][:2]
        return towards(game.sub_x, x, "l", "r") or towards(game.sub_y, y, "u", "d")

    def seen(game, reward):
        yield f"level {min(game.ramp_index, LEVELS)}"
        yield f"{max(game.diver_count, -1)} on board"
        if reward > 2:
            yield "full load"
        if len(game.e_fish) + len(game.e_subs) > 20:
            yield "crowd"

    happened = compare("seaquest", 1600, mostly("seaquest", best), seen, immortal=True)
    for what in ("level 1", "level 19", "full load", "crowd", *(f"{n} on board" for n in range(-1, 7))):
        assert happened[what], what


def crowd(rng, game, state, e):
    """Fill both seas alike, so that several things happen in the same cells at the same step."""
    ways, level = rng.choice([-1, 1], 9), int(rng.integers(LEVELS + 1))
    mine = {name: tensor[e].numpy() for name, tensor in state.items()}  # written through
    game.e_fish, game.e_subs, game.e_bullets = [], [], []
    for slot, age in enumerate(sorted(rng.permutation(RELOAD)[:9], reverse=True)):
        x, y, rest, sub = rng.integers(2, 6), rng.integers(1, 4), rng.integers(3), rng.random() < 0.5
        row = [int(x), int(y), bool(ways[y] > 0), int(rest)]
        game.e_subs += [[*row, RELOAD - 1 - int(age)]] * sub
        game.e_fish += [row] * (not sub)
        for name, value in (("x", x), ("y", y), ("v", ways[y]), ("rest", rest), ("age", age), ("sub", sub)):
            mine[f"enemy_{name}"][slot] = value
    for slot in range(20, 20 + rng.integers(4)):
        bomb = rng.integers(10), rng.integers(1, 9), rng.choice([-1, 1])
        game.e_bullets += [[int(bomb[0]), int(bomb[1]), bool(bomb[2] > 0)]]
        mine["bomb_x"][slot], mine["bomb_y"][slot], mine["bomb_v"][slot] = bomb
    for pair in ("shots", "divers"):
        first = rng.integers(2, 7), rng.integers(1, 4), rng.choice([-1, 1])
        other = (first[0] + 2 * first[2], first[1], -first[2]) if rng.random() < 0.5 else (5, 2, -first[2])
        mine[pair][:] = np.array([first, other]).T
    reload = int(rng.choice([0, 1, 2, 5]))
    if reload < 5:
        mine["shots"][2, 1] = 0  # as he fires again, the older shot must be gone
    clock = int(rng.integers(6, 30))  # no new diver while two are there
    game.f_bullets, game.divers = (
        [[int(x), int(y), bool(v > 0), *more] for x, y, v in reversed(mine[pair].T) if v]
        for pair, more in (("shots", ()), ("divers", ((clock - 1) % 6,)))
    )
    game.sub_x, game.sub_y, game.sub_or = int(rng.integers(3, 6)), int(rng.integers(4)), bool(rng.integers(2))
    game.oxygen, game.diver_count, game.shot_timer = int(rng.integers(200)), int(rng.integers(4, 7)), reload
    game.surface, game.d_spawn_timer, game.e_spawn_timer = game.sub_y == 0, clock, int(rng.integers(3))
    game.ramp_index, game.e_spawn_speed, game.move_speed = level, 20 - level, max(2, 5 - level // 2)
    names = {"x": "sub_x", "y": "sub_y", "faces_right": "sub_or", "oxygen": "oxygen", "aboard": "diver_count",
             "reload": "shot_timer", "surfaced": "surface", "diver_spawn": "d_spawn_timer", "spawn": "e_spawn_timer",
             "level": "ramp_index"}  # fmt: skip
    for name, theirs in names.items():
        state[name][e] = getattr(game, theirs)


def test_seaquest_in_a_crowd():
    """Who of several in a cell is killed by which of several shots, which diver gets the last place, and so on."""
    mine, theirs = Seaquest(), [Reference("seaquest", True) for _ in range(E)]
    rng, draw, rewards = np.random.default_rng(0), generator(), Counter()
    for _ in range(200):
        state = begun(mine, theirs, draw, rng, crowd)
        for _ in range(5):
            action = torch.from_numpy(rng.choice(6, E, p=[0.1, 0.1, 0.1, 0.1, 0.1, 0.5]))
            state, reward, _ = tick(mine, state, theirs, action, mine.draw(E, draw, CPU))
            rewards.update(reward)
            for reference in theirs:
                reference.game.terminal = False
    assert rewards[1.0] > 1000 and rewards[2.0] > 100 and rewards[9.0]


def test_seaquest_has_slots_enough():
    """Whatever the rhythm of the levels: nobody is refused who is due, none is in the way of a bomb's slot.

    Every environment goes up a level every 2, 3, … steps; all enemies go to the right, and some are shot."""
    rhythm = torch.arange(2, 26)
    game, draw, most = Seaquest(sticky=0), generator(), torch.zeros(len(rhythm))
    state = game.reset(len(rhythm), draw, CPU)
    state["oxygen"] += 10**6
    for t in range(700):
        due = state["spawn"] == 0
        state["level"] = (t // rhythm).clamp(max=LEVELS)
        bombs = (state["enemy_v"] != 0) & state["enemy_sub"] & (state["enemy_age"] % RELOAD == RELOAD - 1)
        assert not (bombs & (state["bomb_v"] != 0)).any()
        draws = game.draw(len(rhythm), draw, CPU)
        draws["enemy_right"].zero_()
        state, _, _ = game.advance(state, torch.zeros_like(rhythm), draws)
        there = state["enemy_v"] != 0
        assert ((there & (state["enemy_age"] == 1)).any(1) == due).all()
        most = torch.maximum(most, there.sum(1))
        if t > 600:
            state["enemy_v"] *= torch.rand(there.shape, generator=draw) < 0.95
    assert (most == ENEMIES - 1).all()  # and one more comes before the oldest leaves


def test_a_row_is_chosen_also_where_the_product_is_rounded_up():
    game = GAMES["asterix"]()
    for free in range(9):
        state = game.reset(1, generator(), CPU)
        state["item_v"][:, : 8 - free], state["spawn"] = 1, torch.zeros(1, dtype=torch.int64)
        draws = {name: torch.full((1,), 1 - 2**-24) for name in game.chances}
        after, _, _ = game.advance(state, torch.zeros(1, dtype=torch.int64), draws)
        assert (after["item_v"] != 0).sum() == min(8, 9 - free)
        assert after["item_v"][0, -1] == (-1 if free else 1)


def play(name, num_envs, steps, seed=0):
    """Some states on the way of random play through many episodes, with the action taken there and what chance said."""
    game, draw = GAMES[name](), generator(seed)
    state = game.reset(num_envs, draw, CPU)
    for t in range(steps):
        action = torch.randint(game.spec.num_actions, (num_envs,), generator=draw)
        draws = game.draw(num_envs, draw, CPU)
        if t % 10 == 0:
            yield game, state, action, draws
        state, _, done = game.advance(state, action, draws)
        state = chosen(done, game.reset(num_envs, draw, CPU), state)


def copied(*dicts):
    return [{name: tensor.clone() for name, tensor in tensors.items()} for tensors in dicts]


def assert_equal(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_envs", [1, 7])
def test_shapes(name, num_envs):
    for game, state, action, draws in play(name, num_envs, 21):
        fresh, (after, reward, done) = game.begin(draws), game.advance(state, action, draws)
        assert {k: (v.shape, v.dtype) for k, v in after.items()} == {k: (v.shape, v.dtype) for k, v in fresh.items()}
        assert all(len(tensor) == num_envs for tensor in after.values())
        assert (reward.shape, reward.dtype) == ((num_envs,), torch.float32)
        assert (done.shape, done.dtype) == ((num_envs,), torch.bool)
        seen = game.observe(after)
        assert (seen.shape, seen.dtype) == ((num_envs, *game.spec.obs_shape), torch.bool)
        assert game.spec.obs_dtype == np.bool_ and game.limit == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_minatars(name):
    pytest.importorskip("minatar")
    from minatar import Environment

    theirs, spec = Environment(name), GAMES[name].spec
    assert list(spec.obs_shape) == theirs.state_shape()
    assert spec.num_actions == len(theirs.minimal_action_set()) == len(MINIMAL[name])
    assert [theirs.env.action_map[a] for a in theirs.minimal_action_set()] == list(MINIMAL[name])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_given_is_written_into_and_nothing_is_shared(name):
    """A state may be kept, or overwritten, entry by entry, with what came of it."""
    for game, state, action, draws in play(name, 3, 200):
        before, chances = copied(state, draws)
        decided = action.clone()
        after, _, _ = game.advance(state, action, draws)
        fresh = game.begin(draws)
        game.observe(state)
        assert_equal(state, before)
        assert_equal(draws, chances)
        assert (action == decided).all()
        places = [t.untyped_storage().data_ptr() for s in (state, after, fresh, draws) for t in s.values()]
        shared = len(draws) - len({t.untyped_storage().data_ptr() for t in draws.values()})
        assert len(places) - len(set(places)) == shared


@pytest.mark.parametrize("name", NAMES)
def test_environments_are_independent(name):
    for game, state, action, draws in play(name, 3, 200):
        after, reward, done = game.advance(state, action, draws)
        fresh = game.begin(draws)
        for e in range(3):
            one = slice(e, e + 1)
            alone, r, end = game.advance(only(state, one), action[one], only(draws, one))
            assert_equal(alone, only(after, one))
            assert_equal(game.begin(only(draws, one)), only(fresh, one))
            assert r == reward[e] and end == done[e]
            assert (game.observe(alone) == game.observe(after)[one]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_draw_and_an_advance(name):
    for game, state, action, _ in play(name, 4, 100):
        one, other = generator(5), generator(5)
        stepped, r, end = game.step(state, action, one)
        advanced, reward, done = game.advance(state, action, game.draw(4, other, CPU))
        assert_equal(stepped, advanced)
        assert (r == reward).all() and (end == done).all()
        assert (one.get_state() == other.get_state()).all()
        assert_equal(game.reset(4, one, CPU), game.begin(game.draw(4, other, CPU)))


def through(engine, name, num_envs, steps):
    """All that comes of random play through many episodes, stepped by the engine."""
    game, draw, actions, got = GAMES[name](), generator(3), generator(4), []
    state = game.reset(num_envs, draw, CPU)
    names = list(state)

    def whole_step(action, *tensors):
        after, reward, done = game.step(dict(zip(names, tensors, strict=True)), action, draw)
        after = chosen(done, game.reset(num_envs, draw, CPU), after)
        return after, {"reward": reward, "done": done, "obs": game.observe(after)}

    step = engine.capture(whole_step)
    for _ in range(steps):
        action = torch.randint(game.spec.num_actions, (num_envs,), generator=actions)
        state, rest = step(action, *state.values())
        got += copied({**state, **rest})
    return got


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_step_is_the_step_as_written(name, recorded_only, caplog):
    """Also that a step never asks the device: a recording has no numbers to answer with."""
    as_written, recorded = (through(kind(CPU, 0), name, 5, 120) for kind in (engines.Eager, engines.Compiled))
    for mine, theirs in zip(recorded, as_written, strict=True):
        assert_equal(mine, theirs)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_envs", [1, 128])
def test_a_compiled_step_is_the_step_as_written(name, num_envs, caplog):
    as_written, program = (through(kind(CPU, 0), name, num_envs, 400) for kind in (engines.Eager, engines.Compiled))
    for mine, theirs in zip(program, as_written, strict=True):
        assert_equal(mine, theirs)
    assert [r.message for r in caplog.records if "Falling back" in r.message] == []


@pytest.mark.parametrize("name", NAMES)
def test_actions_stick(name):
    n, draw = 20_000, generator()
    for sticky, low, high in ((0.0, 0, 0), (0.1, 0.09, 0.11), (1.0, 1, 1)):
        game = GAMES[name](sticky=sticky)
        first, _, _ = GAMES[name](sticky=0.0).step(game.reset(n, draw, CPU), torch.full((n,), 1), draw)
        assert (first["last_action"] == 1).all()
        second, _, _ = game.step(first, torch.full((n,), 2), draw)
        stuck = second["last_action"] == 1
        assert low <= stuck.float().mean() <= high
        assert (second["last_action"] == torch.where(stuck, 1, 2)).all()


def test_a_probability_is_asked_for():
    with pytest.raises(UsageError, match="0 ≤ sticky ≤ 1"):
        Seaquest(sticky=1.5)
