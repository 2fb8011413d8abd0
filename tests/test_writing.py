"""Writing with a guided language model, and taking it away as a stock checkpoint."""

import subprocess
import sys
from math import inf, log

import pytest
import torch
from conftest import configure, here
from language import lines, tiny
from test_language import SMALL

import dqn
from dqn import export, generate, train
from dqn.causal_lm import load
from dqn.config import parts
from dqn.envs.lm import spec_of
from dqn.envs.prompts import Prompt
from dqn.errors import UsageError
from dqn.language import Writer, summary

PROMPTS = [Prompt(text, text) for text in ("a b c", "d", "e f g h")]
LOADS = """
import sys
sys.modules["dqn"] = None  # an import of it would fail
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
torch.manual_seed(5)
given = tokenizer("a b c", return_tensors="pt")
print(model.generate(**given, max_new_tokens=6).tolist()[0][3:])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return lines(tmp_path_factory.mktemp("prompts") / "p.txt", "a b", "c d e", "f")


def writer(folder, prompts, *more, taught=True, count=8):
    """A writer whose head has any matrix (`taught`), or a new one."""
    given = [*SMALL, f"env.model={folder}", f"env.prompts={prompts}", f"env.candidates={count}", *more]
    cfg = configure("algorithm=lm_mc", *given)
    network = parts.network(cfg, spec_of(load(folder), cfg.env.candidates, cfg.env.top_p < 1))
    if taught:
        torch.manual_seed(0)
        torch.nn.init.normal_(network.head.output.matrix, std=0.2)
    return Writer(cfg, network)


def own(lm, prompt, **how):
    """What the library writes with the untouched model."""
    given = torch.tensor([lm.encode(prompt.said)])
    torch.manual_seed(3)
    found = lm.model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=4, pad_token_id=0, **how)
    return found[0, given.shape[1] :].tolist()


@pytest.mark.parametrize("sample", [False, True])
def test_a_new_head_writes_as_the_language_model_token_for_token(folder, prompts, sample):
    """With the library's own generate on the untouched model, greedily and with its own luck."""
    fresh = writer(folder, prompts, taught=False)
    moved = writer(folder, prompts)
    how = {"do_sample": sample, "top_k": 8 if sample else None}
    differs = False
    for prompt in PROMPTS:
        for temperature in (0.01, inf):
            ((_, written),) = fresh.tokens([prompt], fresh.output(temperature), seed=3, sample=sample)
            assert written == own(fresh.lm, prompt, **how)
        ((_, other),) = moved.tokens([prompt], moved.output(0.01), seed=3, sample=sample)
        differs |= other != written
    assert differs  # the same comparison sees a head that is not new


def loop(writer, prompt, written, temperature):
    """log-probability, KL and advantages of a text, a token at a time with loops over the candidates."""
    before, log_probs, divergences, advantages = writer.lm.encode(prompt.said), [], [], []
    head = writer.network.head.output
    for i, token in enumerate(written):
        out = writer.lm.model(torch.tensor([before + written[:i]]), output_hidden_states=True)
        hidden, logits = out.hidden_states[-1][0, -1], out.logits[0, -1]
        best = sorted(range(len(logits)), key=lambda t: -logits[t])[: writer.count]
        q = {t: float(writer.lm.embeddings[t] @ head.bilinear() @ hidden) for t in {*best, token}}
        prior = logits[best].softmax(0).tolist()
        weights = [p * torch.tensor(q[t] / temperature).exp().item() for t, p in zip(best, prior, strict=True)]
        policy = [w / sum(weights) for w in weights]
        divergences.append(sum(a * log(a / b) for a, b in zip(policy, prior, strict=True)))
        log_probs.append(float(logits.log_softmax(0)[token]))
        advantages.append(q[token] - sum(p * q[t] for t, p in zip(best, prior, strict=True)))
    return sum(log_probs) / len(written), sum(divergences) / len(written), advantages


def test_what_is_said_of_a_text_is_what_a_loop_finds(folder, prompts):
    used = writer(folder, prompts)
    texts = used.write(PROMPTS, used.output(0.5), seed=1)
    for prompt, one, (_, written) in zip(PROMPTS, texts, used.tokens(PROMPTS, used.output(0.5), seed=1), strict=True):
        log_prob, kl, advantages = loop(used, prompt, written, 0.5)
        assert (one.log_prob, one.kl) == pytest.approx((log_prob, kl), abs=1e-4)
        assert one.advantages == pytest.approx(advantages, abs=1e-4)
        assert "".join(one.pieces) == one.text
        assert one.score == used.scores[0](prompt, one.text)
    base = used.write(PROMPTS, used.output(inf), seed=1)
    assert all(abs(one.kl) < 1e-6 for one in base)


def test_the_temperature_for_a_kl_is_found(folder, prompts):
    used = writer(folder, prompts)
    many = PROMPTS * 10
    for exported in (False, True):
        for kl in (0.05, 0.3):
            temperature = used.temperature_for(kl, many, exported=exported)
            policy = used.stock(temperature) if exported else used.output(temperature)
            assert summary(used.write(many, policy))["kl"] == pytest.approx(kl, rel=0.2)
    with pytest.raises(UsageError, match="train it before it guides"):
        writer(folder, prompts, taught=False).temperature_for(0.1, PROMPTS)


@pytest.mark.parametrize("tied", [True, False])
def test_an_exported_model_is_the_guided_one_over_the_whole_vocabulary(tmp_path, prompts, tied):
    """Where every token is a candidate the two are the same: logits to 1e-4, and every token of every way to decode."""
    folder = tiny(tmp_path / "base", tied)
    used = writer(folder, prompts, count=30)
    used.export(tmp_path / "taken", 0.3)
    stock = load(str(tmp_path / "taken"))
    assert stock.model.config.tie_word_embeddings is False
    hidden = torch.randn(50, 16) * 4
    guided, exported = (layer(hidden).log_softmax(-1) for layer in (used.output(0.3), stock.output))
    assert (guided - used.output(inf)(hidden).log_softmax(-1)).abs().max() > 1  # they are not the base's
    assert (guided - exported).abs().max() < 1e-4
    torch.testing.assert_close(used.stock(0.3)(hidden), stock.output(hidden))
    for how in ({"do_sample": False}, {"do_sample": True, "top_k": 0}, {"do_sample": False, "num_beams": 3}):
        for prompt in PROMPTS:
            given = torch.tensor([used.lm.encode(prompt.said)])
            both = []
            for model in (dqn.language.with_output(used.lm.model, used.output(0.3)), stock.model):
                torch.manual_seed(1)
                both.append(
                    model.generate(
                        given, attention_mask=torch.ones_like(given), max_new_tokens=6, pad_token_id=0, **how
                    )
                )
            assert torch.equal(*both), how


def test_an_exported_model_loads_where_this_package_is_not(tmp_path, folder, prompts):
    used = writer(folder, prompts)
    used.export(tmp_path / "taken", 0.3)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path / "taken")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with torch.random.fork_rng():
        torch.manual_seed(5)
        given = torch.tensor([used.lm.encode("a b c")])
        wanted = load(str(tmp_path / "taken")).model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=6
        )
    assert done.stdout.strip() == str(wanted.tolist()[0][3:])
    assert "τ is 0.3" in (tmp_path / "taken" / "README.md").read_text()


def test_a_head_that_cannot_be_folded_is_refused(folder, prompts):
    used = writer(folder, prompts, "head=categorical", "output.rank=4", "lambda_=null", "replay.length=1")
    with pytest.raises(UsageError, match="head=expected or head=quantile to export"):
        used.folded(0.5)
    assert used.write(PROMPTS)[0].text  # and writes all the same


def test_the_language_model_itself_is_left_as_it_was(folder, prompts):
    used = writer(folder, prompts)
    before = used.lm.model.get_output_embeddings()
    used.write(PROMPTS, used.output(0.1))
    used.stock(0.1)
    assert used.lm.model.get_output_embeddings() is before and used.lm.output.weight is used.lm.embeddings
    assert used.lm.embeddings.data_ptr() == used.lm.model.get_input_embeddings().weight.data_ptr()


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder, prompts):
    directory = tmp_path_factory.mktemp("runs") / "run"
    given = ["algorithm=lm_mc", "execution=eager", *SMALL, f"env.model={folder}", f"env.prompts={prompts}"]
    code, _, errors = here(train, *given, "tracking.final_episodes=2", f"run.dir={directory}")
    assert code == 0, errors
    return directory


def test_the_verb_writes_base_and_guided_side_by_side(run, tmp_path):
    page = tmp_path / "page.html"
    given = [f"run={run}", "prompt=a b", "trust=[language]"]
    code, said, errors = here(generate, *given, "kl=0.2", "samples=3", f"out={page}")
    assert code == 0, errors
    assert "temperature" in said and said.count("base ") >= 3 and said.count("guided ") >= 3 and "KL" in said
    assert page.read_text().count("<tr><th>guided") == 3 and "title=" in page.read_text()
    code, said, errors = here(generate, *given)  # streamed
    assert code == 0 and "base    a b" in said, errors


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "No prompt was named"),
        (["prompt=a", "kl=0.1", "temperature=1"], "give one of them"),
        (["prompt=a", "temperature=0"], "temperature must be > 0"),
        (["prompt=a", "model=nowhere"], "is no folder"),
    ],
)
def test_a_command_that_cannot_be_is_a_sentence(run, more, said):
    code, _, errors = here(generate, f"run={run}", "trust=[language]", *more)
    assert code == 2 and said in errors and len(errors.strip().splitlines()) == 1, errors


def test_the_verb_exports_and_measures_after_it_has_read_it_again(run, tmp_path):
    code, said, errors = here(export, f"run={run}", f"to={tmp_path / 'taken'}", "kl=0.2", "trust=[language]")
    assert code == 0, errors
    assert all(name in said for name in ("base", "guided", "exported", "kl", "score"))
    code, _, errors = here(export, f"run={run}", f"to={tmp_path / 'taken'}", "trust=[language]")
    assert code == 2 and "is not empty" in errors


def test_a_loaded_agent_generates(run):
    agent = dqn.load(str(run), trust=["language"])
    one = agent.generate("a b", temperature=0.05, seed=2)
    assert one == agent.generate(["a b"], temperature=0.05, seed=2)[0]
    assert one.kl > 0 and one.prompt == "a b"
