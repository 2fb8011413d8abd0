import hashlib
import json
import logging
from random import Random

import numpy as np
import pytest
import torch
from conftest import world

from dqn.envs.make import make
from dqn.errors import UsageError
from dqn.seeding import generator, parameter_hash, stream
from dqn.tracking.checkpoint import SCHEMA, Checkpoints, _rendered, write_text
from dqn.tracking.episodes import Episodes
from dqn.tracking.evaluation import play
from dqn.tracking.logger import STAGES, TAGS, Logger, start_text_log


def test_streams_differ_by_seed_and_purpose_and_stay_the_same():
    seeds = {stream(seed, *purpose) for seed in range(20) for purpose in (("env", 0), ("env", 1), ("replay",))}
    assert len(seeds) == 60
    assert stream(0, "replay") == stream(0, "replay")
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))


def test_parameter_hash_sees_every_bit():
    state = {"w": torch.arange(4.0)}
    other = {"w": torch.nextafter(torch.arange(4.0), torch.tensor(9.0))}
    assert parameter_hash(state) == parameter_hash({"w": torch.arange(4.0)}) != parameter_hash(other)


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_fixed_three_step_episodes_report_three(wired, mode, num_envs):
    run = wired(*world("test/Counting-v0", f"env.autoreset={mode}", f"env.num_envs={num_envs}", "steps=200"))
    run.trainer.run()
    meter = run.trainer.meter
    assert len(meter.recent) >= 60
    assert set(meter.recent) == {6.0}  # 1 + 2 + 3
    assert run.trainer.meter.episodes.lengths.max() <= 3


def test_episodes_end_in_order_within_a_block():
    from dqn.types import Rows

    done = np.array([[0, 1], [1, 0], [0, 1]], bool)
    no, ones = np.zeros((3, 2), bool), np.ones((3, 2), np.float32)
    episodes = Episodes(2)
    assert episodes.extend(Rows(None, None, ones, done, no, no)) == ([], 0.0)  # few rows wait for others
    ones[:] = 7.0  # the stage is filled anew meanwhile
    assert episodes.read() == ([(1.0, 1), (2.0, 2), (2.0, 2)], 1.0)


class Still:
    """Always takes action 0."""

    def __init__(self, num_envs):
        self.action = np.zeros(num_envs, np.int64)

    def act(self, obs, env_steps):
        return self.action

    def forget(self, begins):
        pass


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("episodes", [1, 5, 7])
def test_an_evaluation_plays_exactly_so_many_whole_episodes_of_every_kind(mode, episodes):
    envs = make("test/Counting-v0", 3, autoreset=mode, kwargs={"lengths": (2, 9)})
    result = play(Still(3), envs, episodes, seed=5)
    # environment e plays its own first, second … episode, however long the others last
    assert result["lengths"] == [2 if i // 3 % 2 == 0 else 9 for i in range(episodes)]
    assert result["mean"] == pytest.approx(np.mean([n * (n + 1) / 2 for n in result["lengths"]]))


def test_the_cap_ends_an_episode_without_an_end():
    envs = make("dqn/Chain-v0", imports=["dqn.envs"], max_episode_steps=-1)
    envs.set_cap(20)
    assert play(Still(1), envs, 3, seed=0)["lengths"] == [20] * 3
    with pytest.raises(UsageError, match="episodes"):
        play(Still(1), envs, 0, seed=0)


def test_evaluation_repeats_and_changes_nothing(wired):
    hashes = []
    for every in (0, 250):
        run = wired("steps=1200", "learning_starts=200", f"tracking.evaluate_every={every}")
        run.trainer.run()
        hashes.append(parameter_hash(run.trainer.learner.state()))
    assert hashes[0] == hashes[1]
    assert run.trainer.evaluate(5) == run.trainer.evaluate(5)
    assert run.trainer.evaluate(5, seed=9) != run.trainer.evaluate(5)
    assert run.trainer.evaluate(3, epsilon=0.5)["epsilon"] == 0.5


def test_unknown_tags_are_refused_and_the_set_is_small(tmp_path):
    logger = Logger(tmp_path)
    with pytest.raises(KeyError, match="tags"):
        logger.scalars({"my/tag": 1.0}, 0)
    logger.close()
    assert len(TAGS) + len(STAGES) <= 60


def save(checkpoints, step, rows=3):
    checkpoints.save(
        step, {"w": torch.full((2,), float(step))}, {"slot": torch.arange(rows)}, torch.tensor([step]), 25,
        {"env_steps": step},
    )  # fmt: skip


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        save(checkpoints, step)
    assert len(list(tmp_path.glob("*.json"))) == 2  # bounded
    assert Checkpoints(tmp_path).load().counters == {"env_steps": 30}
    newest = max(tmp_path.glob("*30.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-3] + b"xyz")
    logging.getLogger("dqn").propagate = True
    snapshot = Checkpoints(tmp_path).load()
    assert snapshot.counters == {"env_steps": 20}
    assert snapshot.tensors["w"].tolist() == [20, 20]
    assert "damaged" in caplog.text
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        Checkpoints(tmp_path).load()
    with pytest.raises(UsageError, match="no checkpoint"):
        Checkpoints(tmp_path / "nothing").load()


def test_row_chunks_live_while_a_kept_checkpoint_needs_them(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(10, 110, 10):  # a ring of 25 rows: the newest needs three chunks, the one before as many
        save(checkpoints, step)
        for manifest in tmp_path.glob("*.json"):
            needed = [*json.loads(manifest.read_text())["chunks"]]
            assert all((tmp_path / chunk["file"]).exists() for chunk in needed)
    assert len(list(tmp_path.glob("*-rows.safetensors"))) <= 5
    assert not list(tmp_path.glob("*.tmp"))


def test_another_schema_is_named(tmp_path):
    save(Checkpoints(tmp_path), 10)
    path = next(tmp_path.glob("*.json"))
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    for text in (_rendered({**manifest, "schema": 99}), json.dumps({**manifest, "schema": SCHEMA - 1})):
        write_text(path, text)
        with pytest.raises(UsageError, match=r"schema (99|5), this version reads 6"):
            Checkpoints(tmp_path).load()


def test_no_single_bit_that_flips_goes_unseen(tmp_path):
    save(Checkpoints(tmp_path), 10, rows=9)
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert Checkpoints(tmp_path).load().counters == {"env_steps": 10}
    random = Random(0)
    for path, content in whole.items():
        for bit in random.sample(range(8 * len(content)), min(700, 8 * len(content))):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(UsageError, match=r"Every checkpoint in .* is damaged"):
                Checkpoints(tmp_path).load()
        path.write_bytes(content)
    assert Checkpoints(tmp_path).load().counters == {"env_steps": 10}


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_lost_chunk_of_rows_is_written_again_by_the_next_checkpoint(wired, damage, capsys):
    run = wired("steps=3000", "learning_starts=5000", "tracking.checkpoint_every=500")
    trainer, folder = run.trainer, run.trainer.directory / "checkpoints"

    def lose(path):
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])

    collect = trainer.collector.collect

    def watched(now, *rest):
        if now == 1000:
            lose(min(folder.glob("*-rows.safetensors")))
        return collect(now, *rest)

    start_text_log(None)
    trainer.collector.collect = watched
    trainer.run()
    assert "the next checkpoint writes the whole replay memory again" in capsys.readouterr().out
    snapshot = Checkpoints(folder).load()
    assert snapshot.counters["env_steps"] == 3000
    fresh = wired("steps=3000", "learning_starts=5000").trainer
    [*fresh.restore(snapshot)]
    ring, other = trainer.memory.ring, fresh.memory.ring
    since = torch.zeros_like(ring.written)
    for name, field in ring.rows_since(since).items():
        assert torch.equal(field.nan_to_num(), other.rows_since(since)[name].nan_to_num())


def test_what_still_works_is_said_where_rows_are_lost(tmp_path):
    save(Checkpoints(tmp_path), 10)
    next(tmp_path.glob("*-rows.safetensors")).unlink()
    with pytest.raises(UsageError, match="the network is whole, so evaluate it"):
        Checkpoints(tmp_path).load()
    assert Checkpoints(tmp_path).load(weights_only=True).tensors["w"].tolist() == [10, 10]


def test_what_is_not_a_checkpoints_is_left_alone(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "000009-90.json").mkdir()
    foreign = ["backup.json", "notes.txt", "000003-30.json.bak", "model.safetensors", "x-rows.safetensors", "a.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / "000002-20.tmp").write_text("of a process that was killed")
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        save(checkpoints, step)
    assert Checkpoints(tmp_path).load().counters == {"env_steps": 30}
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)
    assert (tmp_path / ".ipynb_checkpoints").is_dir() and not (tmp_path / "000002-20.tmp").exists()


CRAFTED = {
    "files is a number": lambda m: {**m, "files": 3},
    "chunks is a number": lambda m: {**m, "chunks": 3},
    "no files": lambda m: {**m, "files": {}},
    "two states": lambda m: {**m, "files": {**m["files"], "000001-11.safetensors": "0"}},
    "elsewhere": lambda m: {**m, "files": {"../secret.safetensors": "0"}},
    "a list": lambda m: {"schema": SCHEMA, "counters": []},
    "no counters": lambda m: {k: v for k, v in m.items() if k != "counters"},
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_manifest_is_damaged(tmp_path, name):
    save(Checkpoints(tmp_path), 10)
    path = next(tmp_path.glob("*.json"))
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    write_text(path, _rendered(CRAFTED[name](manifest)))
    with pytest.raises(UsageError, match=r"Every checkpoint in .* is damaged"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("text", ["[" * 100_000, "3", '"x"', "null", "", "{" + '"a":' * 3])
def test_a_manifest_that_is_none_is_damaged(tmp_path, text):
    save(Checkpoints(tmp_path), 10)
    next(tmp_path.glob("*.json")).write_text(text)
    with pytest.raises(UsageError, match=r"Every checkpoint in .* is damaged"):
        Checkpoints(tmp_path).load()


def test_a_file_that_holds_no_tensors_under_a_right_checksum_is_damaged(tmp_path):
    save(Checkpoints(tmp_path), 10)
    path, manifest = next(tmp_path.glob("*10.safetensors")), next(tmp_path.glob("*.json"))
    path.write_bytes(b"no tensors")
    changed = json.loads(manifest.read_text())
    del changed["sha256"]
    changed["files"] = {path.name: hashlib.sha256(b"no tensors").hexdigest()}
    write_text(manifest, _rendered(changed))
    with pytest.raises(UsageError, match=r"Every checkpoint in .* is damaged"):
        Checkpoints(tmp_path).load()


def test_no_link_is_followed_when_a_file_is_written(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "result.json.tmp").symlink_to(victim)
    (tmp_path / "000001-10.tmp").symlink_to(victim)
    (tmp_path / "000001-10-rows.tmp").symlink_to(victim)
    (tmp_path / "000001-10.json.tmp").symlink_to(victim)
    (tmp_path / "train.log").symlink_to(victim)
    write_text(tmp_path / "result.json", "{}")
    save(Checkpoints(tmp_path), 10)
    start_text_log(tmp_path / "train.log")
    logging.getLogger("dqn").info("hello")
    start_text_log(None)
    assert victim.read_text() == "precious"
    assert (tmp_path / "result.json").read_text() == "{}"
