"""Recorded texts as experience: which tokens are decisions, what is seen before them, what is wrong with a line."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import here
from language import lines, tiny

import dqn
from dqn import export, generate, train
from dqn.causal_lm import load
from dqn.config import conversations
from dqn.config.conversations import features, language_rows, recorded_lines
from dqn.envs.lm import spec_of
from dqn.errors import UsageError
from dqn.networks.records import split
from dqn.replay.dataset import best

K = 6
LINES = [
    {"prompt": "a b", "completion": "c d e", "reward": 1},
    {"messages": [{"role": "user", "content": "f"}, {"role": "assistant", "content": "good", "reward": 0.25},
                  {"role": "user", "content": "g h"}, {"role": "assistant", "content": "i j"}], "reward": 0.5},
    {"prompt": "k", "completion": "l", "reward": -1.5},
]  # fmt: skip
# In words: the template of the tiny model writes the first letter of the role, the content and a full stop.
DECIDED = [["c", "d", "e", "<end>"], ["a", "good", ".", "a", "i", "j", "."], ["l", "<end>"]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("llama"))


def words(lm, tokens):
    return lm.tokenizer.convert_ids_to_tokens(tokens)


def test_only_what_the_assistant_says_is_decided(folder, tmp_path):
    """The tokens of prompts, of other speakers and of the template between turns are no decisions."""
    lm = load(folder)
    found = recorded_lines(lines(tmp_path / "t.jsonl", *LINES), lm)
    assert [words(lm, [line.tokens[i] for i in line.decided]) for line in found] == DECIDED
    assert [line.rewards for line in found] == [[0, 0, 0, 1], [0, 0, 0.25, 0, 0, 0, 0.5], [0, -1.5]]
    assert words(lm, found[1].tokens) == ["u", "f", ".", "a", "good", ".", "u", "g", "h", ".", "a", "i", "j", "."]


def test_what_is_seen_is_what_the_model_says_before_each_decision(folder, tmp_path):
    lm, path = load(folder), lines(tmp_path / "t.jsonl", *LINES)
    found, at = features(path, lm, K), 0
    assert found["hidden"].dtype == torch.bfloat16
    replaced = 0
    for line in recorded_lines(path, lm):
        for place in line.decided:
            out = lm.model(torch.tensor([line.tokens[:place]]), output_hidden_states=True)
            torch.testing.assert_close(found["hidden"][at].float(), out.hidden_states[-1][0, -1], rtol=0.02, atol=0.02)
            best = out.logits[0, -1].argsort(descending=True)[:K].tolist()
            written = line.tokens[place]
            if written not in best:
                best[-1], replaced = written, replaced + 1
            assert found["token"][at].tolist() == best
            assert best[found["action"][at]] == written
            log_probs = out.logits[0, -1].log_softmax(-1)[best]
            torch.testing.assert_close(found["log_prior"][at], log_probs, rtol=1e-4, atol=1e-4)
            at += 1
    assert at == len(found["action"]) and 0 < replaced < at


def rows_of(path, folder, share=1.0):
    lm = load(folder)
    blocks = [*language_rows(path, lm, spec_of(lm, K, False))]
    blocks = blocks if share == 1 else [*best(blocks, share)]
    return {
        f: torch.cat([getattr(b, f) for b in blocks])[:, 0] for f in ("action", "reward", "terminated", "reset")
    }, blocks


def test_a_text_is_its_decisions_and_a_row_that_closes_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(conversations, "BLOCK", 5)  # a text lies in two blocks
    path = lines(tmp_path / "t.jsonl", *LINES)
    rows, blocks = rows_of(path, folder)
    lengths = [len(words) for words in DECIDED]
    shut = [flag for n in lengths for flag in [False] * n + [True]]
    ends = [flag for n in lengths for flag in [False] * (n - 1) + [True, False]]
    assert rows["reset"].tolist() == shut and rows["terminated"].tolist() == ends
    assert rows["reward"][~rows["reset"]].tolist() == [0, 0, 0, 1, 0, 0, 0.25, 0, 0, 0, 0.5, 0, -1.5]
    spec = spec_of(load(folder), K, False)
    hidden = torch.cat([split(spec.parts, b.obs[:-1, 0])["hidden"] for b in blocks])[~rows["reset"]]
    assert torch.equal(hidden, features(path, load(folder), K)["hidden"].float())


def test_the_best_texts_are_those_with_the_largest_rewards(folder, tmp_path):
    path = lines(tmp_path / "t.jsonl", *LINES)
    rows, _ = rows_of(path, folder, share=0.34)
    assert rows["reward"].tolist() == [0, 0, 0, 1, 0]
    rows, _ = rows_of(path, folder, share=0.67)
    assert rows["reward"].sum() == 1.75


def test_what_the_model_makes_of_a_file_is_kept(folder, tmp_path, caplog, monkeypatch):
    path, lm = lines(tmp_path / "t.jsonl", *LINES), load(folder)
    one = features(path, lm, K)
    monkeypatch.setattr(conversations, "_read", None)  # a second reading would fail
    with caplog.at_level(logging.INFO, "dqn"):
        two = features(path, lm, K)
    assert "was kept" in caplog.text and all(torch.equal(one[name], two[name]) for name in one)
    for changed in (K - 1, K):  # another number of candidates, another file
        with pytest.raises(TypeError):
            features(path, lm, changed)
        lines(tmp_path / "t.jsonl", *LINES[:2])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no JSON"),
        ({"prompt": "a", "completion": "b"}, "line 2 has no `reward`"),
        ({"prompt": "a", "completion": "b", "reward": "much"}, "line 2 has no `reward`, or one that is no number"),
        ({"prompt": "a", "reward": 1}, "line 2 needs `prompt` and `completion`"),
        ({"prompt": "", "completion": "b", "reward": 1}, "line 2 has no tokens before its completion"),
        ({"messages": [{"role": "user", "content": "a"}], "reward": 1}, "line 2 has no token of the assistant"),
        ({"messages": "a", "reward": 1}, "line 2 needs `messages` as a list"),
        (
            {"prompt": "a " * 70, "completion": "b", "reward": 1},
            "line 2 has 72 tokens, more than the model's context of 64",
        ),
    ],
)
def test_a_bad_line_is_a_sentence_with_its_number(folder, tmp_path, line, said):
    path = lines(tmp_path / "t.jsonl", LINES[0], line)
    with pytest.raises(UsageError) as error:
        recorded_lines(path, load(folder))
    assert said in str(error.value) and "\n" not in str(error.value)
    code, _, errors = here(train, *command(folder, path, tmp_path / "run"))
    assert code == 2 and len(errors.strip().splitlines()) == 1, errors


def command(folder, path, directory):
    return [
        "algorithm=lm_offline", "env=lm", f"env.model={folder}", f"replay.path={path}", f"env.candidates={K}",
        "env.max_tokens=6", "execution=eager", "steps=300", "tuned.batch_size=16", "tuned.lr=0.003",
        "tuned.temperature=0.1", f"run.dir={directory}",
    ]  # fmt: skip


def logged(path, count=400):
    """Conversations of a writer who says anything; what is best is known: good after a, bad after b."""
    rng, best, rows = np.random.default_rng(0), {"a": "good", "b": "bad"}, []
    for _ in range(count):
        asked, said = rng.choice(["a", "b"]), rng.choice(["good", "bad"])
        turns = [{"role": "user", "content": str(asked)}, {"role": "assistant", "content": str(said)}]
        rows.append({"messages": turns, "reward": float(best[asked] == said)})
    return lines(path, *rows)


def test_logged_conversations_become_a_better_writer_in_three_commands(folder, tmp_path):
    """Train, write, take away. The words that were rewarded after each question are worth more than the others."""
    path, run = logged(tmp_path / "log.jsonl"), tmp_path / "run"
    code, _, errors = here(train, *command(folder, path, run))
    assert code == 0, errors
    agent = dqn.load(str(run))
    lm = load(folder)
    for asked, right in (("a", "good"), ("b", "bad")):
        tokens = [*lm.encode([{"role": "user", "content": asked}]), *lm.encode("a")]
        hidden = lm.model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
        q = dqn.language.values(agent.network.head, hidden, torch.tensor(lm.encode("good bad"))).tolist()
        assert q[0 if right == "good" else 1] > q[1 if right == "good" else 0] + 0.5, (asked, q)
    code, said, errors = here(generate, f"run={run}", "prompt=u a . a", "temperature=0.05")
    assert code == 0 and "guided" in said, errors
    code, said, errors = here(export, f"run={run}", f"to={tmp_path / 'taken'}", "temperature=0.05")
    assert code == 0 and "exported" in said, errors


def test_offline_texts_continue_exactly(folder, tmp_path):
    path = logged(tmp_path / "log.jsonl", 50)
    results = []
    for name, stops in (("whole", [60]), ("cut", [25, 60])):
        run = tmp_path / name
        for n, stop in enumerate(stops):
            words = [f"resume={run}", f"steps={stop}"] if n else [*command(folder, path, run), f"steps={stop}"]
            code, _, errors = here(train, *words)
            assert code == 0, errors
        results.append(json.loads((run / "result.json").read_text())["parameter_hash"])
    assert results[0] == results[1]


def test_the_best_fifth_is_cloned(folder, tmp_path):
    """lm_clone: what was said in the best texts becomes likelier, by the terms alone."""
    path, run = logged(tmp_path / "log.jsonl", 200), tmp_path / "run"
    words = [word.replace("lm_offline", "lm_clone") for word in command(folder, path, run)]
    code, _, errors = here(
        train, *words, "replay.best=0.5", "tuned.temperature=1.0", "env.candidates=30", "tuned.lr=0.02"
    )
    assert code == 0, errors
    agent, lm, found = dqn.load(str(run)), load(folder), {}
    for asked in "ab":
        tokens = [*lm.encode([{"role": "user", "content": asked}]), *lm.encode("a")]
        hidden = lm.model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
        pair = torch.tensor(lm.encode("good bad"))
        good, bad = (lm.output(hidden)[pair] + dqn.language.values(agent.network.head, hidden, pair)).tolist()
        found[asked] = good - bad  # of the guided policy's logits at temperature 1
    assert found["a"] > 1 and found["b"] < -1, found
