"""Values tied to a language model's output embeddings."""

import copy

import numpy as np
import pytest
import torch
from conftest import configure
from language import tiny
from oracles.guided import tied

from dqn.causal_lm import load
from dqn.config import parts
from dqn.envs.lm import spec_of
from dqn.networks.tied import Candidates, Tied
from dqn.types import MASK, PRIOR

K, D = 5, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("llama"))


def moved(module, seed=0):
    """The same module with parameters that are not zero."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def features(batch=3):
    torch.manual_seed(1)
    tokens = torch.stack([torch.randperm(30)[:K] for _ in range(batch)])
    return torch.cat([torch.randn(batch, D), tokens.float()], -1), tokens


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("atoms", [1, 4])
def test_values_are_those_of_the_loops(folder, rank, atoms):
    lm = load(folder)
    output = moved(Tied(D + K, K, atoms, folder, rank=rank))
    given, tokens = features()
    found = output(given)
    assert found.shape == (3, K, atoms)
    with torch.no_grad():
        matrix = (
            output.matrix if rank is None else torch.stack([output.left.T @ m @ output.right for m in output.matrix])
        )
        for row in range(3):
            hidden = given[row, :D] / lm.norms[1]
            embedded = lm.embeddings[tokens[row]] / lm.norms[0]
            value = output.value(hidden * D**0.5)
            wanted = tied(value.tolist(), matrix.tolist(), embedded.tolist(), hidden.tolist())
            np.testing.assert_allclose(found[row].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 3])
def test_what_a_candidate_adds_is_bilinear_in_the_models_own_vectors(folder, rank):
    lm, output = load(folder), moved(Tied(D + K, K, 2, folder, rank=rank))
    given, tokens = features()
    with torch.no_grad():
        mean = output(given).mean(-1)  # [B, K]
        adds = torch.einsum("bki,ij,bj->bk", lm.embeddings[tokens], output.bilinear(), given[:, :D])
    torch.testing.assert_close(mean - mean[:, :1], adds - adds[:, :1], rtol=1e-4, atol=1e-5)


def test_a_new_output_is_worth_the_same_for_every_candidate(folder):
    for atoms in (1, 51):
        for rank in (None, 4):
            out = Tied(D + K, K, atoms, folder, rank=rank, hidden=[8])(features()[0])
            assert (out == out[:, :1]).all()


def test_the_embeddings_are_shared_and_in_no_checkpoint(folder):
    output = Tied(D + K, K, 1, folder)
    other = copy.deepcopy(output)
    assert other.table.weight.data_ptr() == output.table.weight.data_ptr() == load(folder).embeddings.data_ptr()
    assert other.matrix.data_ptr() != output.matrix.data_ptr()
    assert max(x.numel() for x in output.state_dict().values()) == D * D
    assert not any(p.data_ptr() == output.table.weight.data_ptr() for p in output.parameters())


def test_what_is_read_is_named_when_it_does_not_fit(folder):
    with pytest.raises(ValueError, match="torso=candidates"):
        Tied(D + K + 1, K, 1, folder)
    with pytest.raises(ValueError, match="rank"):
        Tied(D + K, K, 1, folder, rank=0)
    with pytest.raises(ValueError, match="env=lm"):
        Candidates(parts.environments(configure("env=chain")).spec)


def test_a_record_brings_the_prior_to_the_values(folder):
    """Legal actions and the prior travel in the record, the torso sees neither."""
    spec = spec_of(load(folder), K, masked=True)
    cfg = configure("algorithm=lm_mc", "env=lm", f"env.model={folder}", "env.candidates=5", "env.top_p=0.5")
    network = parts.network(cfg, spec)
    record = {
        "hidden": torch.randn(2, D), "token": torch.arange(2 * K).view(2, K).int(), PRIOR: torch.randn(2, K),
        MASK: torch.tensor([[True] * 4 + [False], [True] * 5]),
    }  # fmt: skip
    obs = np.zeros((2, *spec.obs_shape), np.uint8)
    place = 0
    for name, part in spec.parts:
        raw = record[name].numpy().astype(part.obs_dtype).view(np.uint8)
        obs[:, place : place + raw.shape[1]] = raw
        place += -(-raw.shape[1] // 8) * 8
    values = network(torch.from_numpy(obs))
    assert torch.equal(values.prior, record[PRIOR]) and torch.equal(values.mask, record[MASK])
    assert values.q.shape == (2, K) and values.q[0, -1] < -1e29
