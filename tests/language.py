"""A tiny random Llama with a tokenizer of whole words, made in a moment, and what tests score its texts by."""

import json

import pytest
import torch

WORDS = [*"abcdefghijklmnopqrstuvwxyz", "good", "bad", "."]
MODEL_SEED = 3


def tiny(folder, tied=True, width=16, words=WORDS):
    """A Llama of two layers in `folder`; its end token pads, too, as SmolLM2's does."""
    transformers = pytest.importorskip("transformers", reason="the language tests need transformers (extra lm)")
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<end>", *words]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} . {% endfor %}"
    with torch.random.fork_rng():
        torch.manual_seed(MODEL_SEED)
        config = transformers.LlamaConfig(
            vocab_size=len(names), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, eos_token_id=0, bos_token_id=0,
            pad_token_id=0, tie_word_embeddings=tied, initializer_range=0.3,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def good(prompt, text):
    """The share of words that are in the first half of the alphabet."""
    words = text.split()
    return sum(word < "n" for word in words) / max(1, len(words))


def length(prompt, text):
    return float(len(text.split()))


def wanted(prompt, text, answer):
    return float(answer in text.split())


def broken(prompt, text):
    return "not a number"


def lines(path, *rows):
    """A file of prompts: text, or objects as JSON."""
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)
