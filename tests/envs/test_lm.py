"""A frozen language model as environments: what is seen, what ends a text, and what is learnt from."""

import json

import numpy as np
import pytest
import torch
from conftest import here
from language import lines, tiny

from dqn import train
from dqn.causal_lm import Decoding, load
from dqn.envs.lm import LanguageEnvs, candidates_of, nucleus
from dqn.envs.prompts import Prompt, Score, read
from dqn.errors import UsageError
from dqn.networks.records import split

PROMPTS = ["a b c", "d", "e f", "good bad a b c d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("llama"))


def made(folder, num_envs=3, score="language:good", **options):
    options = {"max_tokens": 5, "candidates": 6, **options}
    prompts = [Prompt(text, f"line {i}") for i, text in enumerate(PROMPTS)]
    return LanguageEnvs(load(folder), prompts, Score("env.score", score), num_envs=num_envs, **options)


def seen(envs, obs):
    return split(envs.spec.parts, torch.from_numpy(obs))


@torch.no_grad()
def alone(lm, tokens):
    """What the model says after some tokens, read in one piece without a cache: hidden vector and logits."""
    out = lm.model(torch.tensor([tokens]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1], out.logits[0, -1]


def test_texts_of_a_batch_are_what_each_would_be_alone(folder):
    """Prompts of different lengths, with a cache and with what pads them."""
    lm = load(folder)
    texts = [lm.encode(prompt) for prompt in PROMPTS]
    decoding = Decoding(lm, texts)
    for token in (7, 0, 3):
        for row, text in enumerate(texts):
            hidden, logits = alone(lm, text)
            torch.testing.assert_close(decoding.hidden[row], hidden, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(decoding.logits[row], logits, rtol=1e-4, atol=1e-5)
        decoding.append(torch.full((len(texts),), token))
        texts = [[*text, token] for text in texts]


def test_what_is_seen_is_the_hidden_vector_and_the_likeliest_tokens(folder):
    envs = made(folder, num_envs=4)
    obs = seen(envs, envs.reset(0))
    for row, prompt in enumerate(envs.now):
        hidden, logits = alone(envs.lm, envs.lm.encode(prompt.said))
        best = sorted(range(len(logits)), key=lambda t: -logits[t])[:6]
        torch.testing.assert_close(obs["hidden"][row], hidden, rtol=1e-4, atol=1e-5)
        assert obs["token"][row].tolist() == best
        torch.testing.assert_close(obs["log_prior"][row], logits.log_softmax(-1)[best], rtol=1e-4, atol=1e-5)


def test_an_episode_is_its_tokens_and_no_others(folder):
    """Every row that is learnt from is a token that was taken: the prompt's and the waiting ones are none."""
    envs = made(folder, num_envs=3, limit="terminate")
    envs.reset(1)
    rng, taken, texts = np.random.default_rng(0), [[], [], []], [None] * 3
    for _ in range(40):
        action = rng.integers(6, size=3)
        shown, begun = envs.candidates[range(3), action], envs.done.all()
        step = envs.step(action)
        assert step.reset.all() == begun
        for e in range(3):
            if not step.reset[e]:
                taken[e].append(int(shown[e]))
                assert envs.texts[e] == taken[e]
            if step.terminated[e]:
                assert taken[e][-1] == 0 or len(taken[e]) == 5
                assert step.reward[e] == envs.score(envs.now[e], envs.text(e))
                texts[e], taken[e] = taken[e], []
            else:
                assert step.reward[e] == 0 and not step.truncated[e]
    assert all(texts)


def ending(folder, limit, **options):
    """Steps of episodes until both kinds of end were seen: (environments, step, texts before it)."""
    envs = made(folder, num_envs=4, limit=limit, candidates=28, **options)
    envs.reset(0)
    rng = np.random.default_rng(1)
    for _ in range(60):
        at_end = envs.candidates == 0
        action = np.where(at_end.any(1) & (rng.random(4) < 0.2), at_end.argmax(1), rng.integers(28, size=4))
        yield envs, envs.step(action)


def test_an_end_token_terminates_and_the_limit_truncates(folder):
    ends = {"end": 0, "limit": 0}
    for envs, step in ending(folder, "truncate"):
        for e in (step.terminated | step.truncated).nonzero()[0]:
            ended = envs.texts[e][-1] == 0
            ends["end" if ended else "limit"] += 1
            assert step.terminated[e] == ended and step.truncated[e] == (not ended)
            if not ended:  # not scored, and what is seen is what the model says after the last token: a value follows
                assert step.reward[e] == 0
                hidden, _ = alone(envs.lm, [*envs.lm.encode(envs.now[e].said), *envs.texts[e]])
                torch.testing.assert_close(seen(envs, step.obs)["hidden"][e], hidden, rtol=1e-4, atol=1e-5)
    assert min(ends.values()) > 3


def test_a_limit_that_ends_the_text_terminates(folder):
    ended = [(step.terminated.any(), step.truncated.any()) for _, step in ending(folder, "terminate")]
    assert any(t for t, _ in ended) and not any(t for _, t in ended)


def test_shaped_rewards_add_up_to_the_score(folder):
    sums, found = np.zeros(4), []
    for envs, step in ending(folder, "terminate", shaping=True, score="language:length"):
        sums += step.reward
        for e in step.terminated.nonzero()[0]:
            assert sums[e] == pytest.approx(envs.score(envs.now[e], envs.text(e)))
            found.append(sums[e])
            sums[e] = 0
    assert len({*found}) > 2


def test_texts_begin_again_as_the_seed_says(folder):
    envs, other = made(folder), made(folder)
    one, two = envs.reset(5), other.reset(5)
    assert np.array_equal(one, two) and not np.array_equal(one, envs.reset(6))


def test_every_prompt_comes_before_any_comes_again(folder):
    envs = made(folder, num_envs=2, max_tokens=1, limit="terminate")
    envs.reset(0)
    came = []
    for _ in range(4):
        came += [prompt.said for prompt in envs.now]
        envs.step(np.zeros(2, np.int64))
        envs.step(np.zeros(2, np.int64))
    assert sorted(came[:4]) == sorted(came[4:]) == sorted(PROMPTS)


def test_a_nucleus_is_the_fewest_likeliest_tokens_with_the_probability(folder):
    log_probs, tokens = candidates_of(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 3)
    assert tokens.tolist() == [[1, 3, 2]]
    probs = torch.tensor([3.0, 2.0, 1.0, 0.0]).softmax(0)[:3]
    torch.testing.assert_close(log_probs.exp()[0], probs)
    for top_p, allowed in ((0.1, 1), (float(probs[0]) + 1e-4, 2), (0.999, 3)):
        assert nucleus(log_probs, top_p).tolist() == [[i < allowed for i in range(3)]]
    envs = made(folder, top_p=0.3)
    mask = seen(envs, envs.reset(0))["action_mask"]
    assert mask[:, 0].all() and not mask.all()


def test_what_an_episode_tells_is_the_models_own_opinion(folder):
    """log_prob: the mean log-probability of the tokens under the model, by reading the text in one piece."""
    envs = made(folder, num_envs=2, limit="terminate", candidates=5)
    envs.reset(0)
    for _ in range(5):
        step = envs.step(np.array([1, 2]))
    assert step.terminated.all()
    for e in range(2):
        prompt, text = envs.lm.encode(envs.now[e].said), envs.texts[e]
        total = sum(alone(envs.lm, [*prompt, *text[:i]])[1].log_softmax(-1)[token] for i, token in enumerate(text))
        assert step.episode_info[e, 0] == pytest.approx(float(total) / len(text), abs=1e-4)
        assert step.episode_info[e, 1] == 5


def test_prompts_of_a_file_and_their_lines(tmp_path):
    path = lines(
        tmp_path / "p.jsonl", {"prompt": "a b", "answer": "c"}, "", {"messages": [{"role": "user", "content": "d"}]}
    )
    one, two = read(path)
    assert (one.said, one.more, one.where) == ("a b", {"answer": "c"}, f"{path}, line 1")
    assert two.text == "d" and two.where.endswith("line 3")
    assert [p.said for p in read(lines(tmp_path / "p.txt", "a b", "c"))] == ["a b", "c"]
    score = Score("env.score", "language:wanted")
    assert score(one, "x c") == 1 and score(one, "x") == 0
    with pytest.raises(UsageError, match=r"line 3 has no `answer`, which language:wanted asks for"):
        score(two, "x")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no JSON object"),
        ({"text": "a"}, "line 2 has no prompt"),
        ({"prompt": ""}, "line 2 has no prompt"),
        ({"messages": [{"role": "user"}]}, "line 2 has no prompt"),
        ({"prompt": "a " * 80}, "line 2 has 80 tokens"),
    ],
)
def test_a_bad_line_is_a_sentence_with_its_number(folder, tmp_path, row, said):
    path = lines(tmp_path / "p.jsonl", {"prompt": "a"}, row)
    code, _, errors = here(train, *command(folder, path))
    assert code == 2 and said in errors and len(errors.strip().splitlines()) == 1, errors


def command(folder, prompts, *more):
    return [
        "algorithm=lm_mc",
        "env=lm",
        f"env.model={folder}",
        f"env.prompts={prompts}",
        "env.score=language:good",
        "env.candidates=6",
        *more,
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["env.score=language:nothing"], "env.score=language:nothing cannot be found"),
        (["env.score=language"], "write module:function"),
        (["env.score=null"], "name one with env.score=module:function"),
        (["env.task=sentiment"], "Name either"),
        (["env.model=nowhere"], "is no folder"),
        (["env.candidates=1000"], "env.candidates must be between 2 and"),
        (["env.limit=cut"], "env.limit must be truncate or terminate"),
        (["head=implicit_quantile", "lambda_=null", "replay.length=1"], "output=tied reads the hidden vector as it is"),
        (["exploration=epsilon_greedy"], "belong to env=lm"),
        (["torso=auto"], "torso=candidates"),
        (["execution.actor=process"], "execution.actor=local"),
        (["tracking.info=[x]"], "tracking.info=[]"),
    ],
)
def test_what_cannot_be_is_one_sentence(folder, tmp_path, more, said):
    code, _, errors = here(train, *command(folder, lines(tmp_path / "p.txt", "a"), "execution=eager", *more))
    assert code == 2 and said in errors and len(errors.strip().splitlines()) == 1, errors


def test_a_score_that_is_no_number_ends_the_run_with_a_sentence(folder, tmp_path):
    more = ["env.score=language:broken", "env.limit=terminate", "execution=eager", f"run.dir={tmp_path / 'run'}"]
    code, _, errors = here(train, *command(folder, lines(tmp_path / "p.txt", "a"), *more))
    assert code == 1 and "language:broken gave no number" in errors, errors


def test_weights_that_might_execute_code_are_refused(folder, tmp_path):
    """A pickle, no weights, several GGUF files, code of the model's own: none of it is opened."""
    for names in (["pytorch_model.bin"], [], ["a.gguf", "b.gguf"]):
        other = tmp_path / "-".join(["m", *names])
        other.mkdir()
        for name in names:
            (other / name).write_bytes(b"")
        with pytest.raises(UsageError, match="must hold safetensors or one GGUF file"):
            load(str(other))
    own = tmp_path / "own"
    tiny(own)
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(str(own))
    assert not (tmp_path / "executed").exists()


def test_texts_that_never_end_are_said_to_be_unscored(folder, caplog):
    """Once, and not where a text has ended or the limit is the end."""
    for limit, candidate, said in (("truncate", 1, 1), ("terminate", 1, 0)):
        caplog.clear()
        envs = made(folder, num_envs=4, max_tokens=1, limit=limit)
        envs.reset(0)
        for _ in range(120):
            never = np.array([(row != 0).nonzero()[0][candidate] for row in envs.candidates])
            envs.step(never)
        assert sum("so none was scored" in r.message for r in caplog.records) == said
    caplog.clear()
    for _envs, _step in ending(folder, "truncate"):
        pass
    assert "so none was scored" not in caplog.text
