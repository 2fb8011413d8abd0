"""What an Atari run of a recipe is made of, against what its paper and its authors' code publish."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from conftest import RECIPES, configure
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from dqn.config import parts
from dqn.config.cli import CONF, option_names
from dqn.networks.layers import Noisy
from dqn.ops.schedules import Exponential
from dqn.types import Spec

NOT_ATARI = ("cql", "tabular")  # a dataset's and a table's
ATARI = [recipe for recipe in RECIPES if recipe not in NOT_ATARI]
ACTIONS = 6  # Pong's
STEPS = 10_000_000  # ours: conf/tuned/atari.yaml

MNIH = "Mnih et al. (2015), extended data table 1"
NATURE = "Dopamine, tf/agents/dqn/configs/dqn_nature.gin"
CLEANRL = "CleanRL, dqn_atari.py"
DOUBLE = "van Hasselt et al. (2016), tuned Double DQN; dqn_zoo, double_q/run_atari.py"
WANG = "Wang et al. (2016), §4.2"
SCHAUL = "Schaul et al. (2016), §3.4, §4 and table 3"
ZOO_C51, ZOO_QR = "dqn_zoo, c51/run_atari.py", "dqn_zoo, qrdqn/run_atari.py"
BELLEMARE, DABNEY_A = "Bellemare et al. (2017), §5", "Dabney et al. (2018a), experiments"
DABNEY_B = "Dabney et al. (2018b), §3.1 and §4; Dopamine, implicit_quantile_icml.gin"
YANG, FQF = "Yang et al. (2019), §4 and appendix", "microsoft/FQF, fqf.gin"
MUNCHAUSEN = "Vieillard et al. (2020), §4; google-research/munchausen_rl, atari.gin"
DOPAMINE = "Dopamine, jax/agents/dqn/configs/dqn.gin"
FAREBROTHER = "Farebrother et al. (2024), §3.1 and §4.1"
HESSEL, ZOO_RAINBOW = "Hessel et al. (2018), table 1", "dqn_zoo, rainbow/run_atari.py"
TOROMANOFF = "valeoai/rainbow-iqn-apex, rainbowiqn/args.py"
DER = "van Hasselt et al. (2019), appendix"
BTR, BTR_CODE = "Clark et al. (2024), table D6", "VIPTankz/BTR"
GALLICI = "mttga/purejaxql, pqn_atari.yaml"
FORTUNATO = "Fortunato et al. (2018), §3.2"
HAUSKNECHT = "Hausknecht & Stone (2015), §4 and appendix"
KAPTUROWSKI = "Kapturowski et al. (2019), §2.3, table 2 and appendix"
OURS = "ours"

EPSILON = "exploration.epsilon"
IMPORTANCE = "replay.sampler.importance_exponent"
WHOLE_RUN = {f"{IMPORTANCE}.start": (0.4, SCHAUL), f"{IMPORTANCE}.end": (1.0, SCHAUL),
             f"{IMPORTANCE}.steps": (STEPS, SCHAUL)}  # fmt: skip
EVERYWHERE = {  # unless a recipe says otherwise
    "gamma": (0.99, MNIH), "n_step": (1, MNIH), "reward_clip": (1.0, MNIH), "train_every": (4, MNIH),
    "updates": (1, MNIH), "replay.frame_stack": (4, MNIH), "replay.batch_size": (32, MNIH),
    "replay.capacity": (1_000_000, MNIH), "steps": (STEPS, OURS), "env.num_envs": (1, MNIH),
    "backup._target_": ("dqn.ops.backups.q_learning", MNIH), "env.id": ("ALE/Pong-v5", OURS),
    "lr_schedule.end": (1.0, MNIH), "transform._target_": ("dqn.ops.transforms.Identity", MNIH),
}  # fmt: skip
MNIHS = {
    "learning_starts": (50_000, MNIH), "max_grad_norm": (None, MNIH), "optimizer.lr": (1e-4, CLEANRL),
    "optimizer.eps": (1e-8, CLEANRL), "target.period": (10_000, NATURE), f"{EPSILON}.start": (1.0, MNIH),
    f"{EPSILON}.end": (0.1, MNIH), f"{EPSILON}.steps": (1_000_000, NATURE), "head.loss": ("huber", MNIH),
    "head.kappa": (1.0, MNIH),
}  # fmt: skip
TUNED_DOUBLE = {
    **MNIHS, "target.period": (30_000, DOUBLE), f"{EPSILON}.end": (0.01, DOUBLE),
    "backup._target_": ("dqn.ops.backups.double_q", DOUBLE),
}  # fmt: skip
SLOWER = {"optimizer.lr": (6.25e-5, WANG), "optimizer.eps": (1.5e-4, OURS)}
MILLION = {f"{EPSILON}.start": 1.0, f"{EPSILON}.end": 0.01, f"{EPSILON}.steps": 1_000_000}
QUARTER = {f"{EPSILON}.start": 1.0, f"{EPSILON}.end": 0.01, f"{EPSILON}.steps": 250_000}


def of(source, **numbers):
    """Numbers of one source; a name's dots are written as two underscores."""
    return {name.replace("__", "."): (value, source) for name, value in numbers.items()}


def epsilons(numbers, source):
    return {name: (value, source) for name, value in numbers.items()}


NOISE_ALONE = {f"{EPSILON}.value": (0.0, FORTUNATO), "exploration.ladder": (0.0, FORTUNATO)}
PUBLISHED = {  # recipe → option → (value, source); what is a frame there is a quarter of a decision here
    "dqn": MNIHS,
    "double_dqn": TUNED_DOUBLE,
    "n_step": {**MNIHS, **of(HESSEL, n_step=3)},
    "noisy_dqn": {**{k: v for k, v in MNIHS.items() if EPSILON not in k}, **NOISE_ALONE,
                  **of(FORTUNATO, layer__sigma0=0.5)},
    "dueling": {**TUNED_DOUBLE, **SLOWER, **of(WANG, max_grad_norm=10.0)},
    "per": {**TUNED_DOUBLE, **SLOWER, **WHOLE_RUN, **of(SCHAUL, replay__sampler__priority_exponent=0.6)},
    "c51": {
        **of(BELLEMARE, optimizer__lr=2.5e-4, optimizer__eps=0.01 / 32, head__atoms=51, head__v_min=-10.0,
             head__v_max=10.0),
        **of(ZOO_C51, learning_starts=50_000, target__period=10_000, max_grad_norm=10.0), **epsilons(MILLION, ZOO_C51),
    },
    "qr_dqn": {
        **of(DABNEY_A, optimizer__lr=5e-5, optimizer__eps=0.01 / 32, head__atoms=200, head__kappa=1.0),
        **of(ZOO_QR, learning_starts=50_000, target__period=10_000, max_grad_norm=10.0), **epsilons(MILLION, ZOO_QR),
    },
    "iqn": {
        **of(DABNEY_B, optimizer__lr=5e-5, optimizer__eps=0.01 / 32, head__samples=64, head__midpoints=32,
             head__cosines=64, head__kappa=1.0, learning_starts=50_000, target__period=10_000, max_grad_norm=None),
        **epsilons(MILLION, DABNEY_B),
    },
    "fqf": {
        **of(YANG, optimizer__lr=5e-5, head__atoms=32, head__cosines=64, head__kappa=1.0),
        **of(FQF, optimizer__eps=0.01 / 32, learning_starts=50_000, target__period=10_000, max_grad_norm=None),
        **epsilons(MILLION, FQF),
    },
    "munchausen": {
        **of(MUNCHAUSEN, optimizer__lr=5e-5, optimizer__eps=0.01 / 32, backup__scale=0.9, backup__temperature=0.03,
             backup__floor=-1.0, learning_starts=20_000, target__period=8_000, max_grad_norm=None,
             backup___target_="dqn.ops.backups.munchausen"),
        **epsilons(QUARTER, MUNCHAUSEN),
    },
    "hl_gauss": {
        **of(DOPAMINE, optimizer__lr=6.25e-5, optimizer__eps=1.5e-4, learning_starts=20_000, target__period=8_000,
             max_grad_norm=None), **epsilons(QUARTER, DOPAMINE),
        **of(FAREBROTHER, head__sigma_ratio=0.75, head__v_min=-10.0, head__v_max=10.0, head__bins=51),
    },
    "rainbow": {
        **of(HESSEL, optimizer__lr=6.25e-5, optimizer__eps=1.5e-4, learning_starts=20_000, target__period=8_000,
             n_step=3, layer__sigma0=0.5, replay__sampler__priority_exponent=0.5, head__atoms=51, head__v_min=-10.0,
             head__v_max=10.0, backup___target_="dqn.ops.backups.double_q"),
        **of(ZOO_RAINBOW, max_grad_norm=10.0), **WHOLE_RUN, **NOISE_ALONE,
    },
    "rainbow_iqn": {
        **of(TOROMANOFF, optimizer__lr=5e-5, optimizer__eps=3.125e-4, learning_starts=80_000, target__period=32_000,
             n_step=3, layer__sigma0=0.1, replay__sampler__priority_exponent=0.2, head__samples=64, head__midpoints=32,
             head__cosines=64, head__kappa=1.0, max_grad_norm=None, backup___target_="dqn.ops.backups.double_q"),
        **WHOLE_RUN, **of(TOROMANOFF, exploration__epsilon__start=0.0, exploration__epsilon__end=0.0),
    },
    "der": {
        **of(DER, optimizer__lr=1e-4, optimizer__eps=1.5e-4, learning_starts=1_600, target__period=2_000, n_step=20,
             train_every=1, layer__sigma0=0.1, replay__sampler__priority_exponent=0.5, head__atoms=51, steps=100_000,
             max_grad_norm=10.0, backup___target_="dqn.ops.backups.double_q", replay__capacity=100_000),
        **WHOLE_RUN, f"{IMPORTANCE}.steps": (100_000, SCHAUL), **NOISE_ALONE,
    },
    "btr": {
        **of(BTR, gamma=0.997, n_step=3, train_every=64, env__num_envs=64, learning_starts=200_000, max_grad_norm=10.0,
             optimizer__lr=1e-4, optimizer__eps=1.95e-5, layer__sigma0=0.5, head__samples=8,
             replay__batch_size=256, replay__capacity=2**20, replay__sampler__priority_exponent=0.2,
             target__period=500 * 64, backup__scale=0.9, backup__temperature=0.03, backup__floor=-1.0,
             backup___target_="dqn.ops.backups.munchausen"),
        **of(BTR_CODE, replay__sampler__importance_exponent__start=0.2, replay__sampler__importance_exponent__end=0.2),
        **of(BTR, exploration__epsilon__start=1.0, exploration__epsilon__end=0.01,
             exploration__epsilon__steps=8_000_000 // 4, exploration__epsilon__until=100_000_000 // 4),
    },
    "pqn": {
        **of(GALLICI, env__num_envs=128, replay__length=32, train_every=128 * 32, passes__epochs=2,
             passes__minibatches=32, optimizer__lr=2.5e-4, lambda_=0.65, max_grad_norm=10.0, learning_starts=0,
             replay__batch_size=128, optimizer___target_="torch.optim.RAdam", head__loss="squared", target__polyak=None,
             torso__norm="layer", replay__capacity=128 * 32 * 4),
        **epsilons({f"{EPSILON}.start": 1.0, f"{EPSILON}.end": 0.001, f"{EPSILON}.steps": STEPS // 10}, GALLICI),
    },
    "drqn": {
        **MNIHS,
        **of(HAUSKNECHT, max_grad_norm=10.0, replay__length=10, replay__stored_state=False, replay__frame_stack=1,
             env__kwargs__stack_num=1, replay__capacity=400_000, core__hidden=512),
    },
    "r2d2": {
        **of(KAPTUROWSKI, gamma=0.997, reward_clip=None, n_step=5, replay__length=80, replay__burn_in=40,
             replay__stride=40, replay__batch_size=64, optimizer__lr=1e-4, optimizer__eps=1e-3, core__hidden=512,
             replay__sampler__priority_exponent=0.9, replay__sampler__max_mix=0.9,
             replay__sampler__importance_exponent__start=0.6, replay__sampler__importance_exponent__end=0.6,
             exploration__epsilon__value=0.4, exploration__ladder=7.0,
             transform___target_="dqn.ops.transforms.SignedHyperbolic", transform__epsilon=1e-3,
             backup___target_="dqn.ops.backups.double_q"),
        **of(OURS, env__num_envs=64, train_every=64 * 80 // 8),
    },
}  # fmt: skip

NATURE_CONVS = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]  # channels, kernel, stride; Mnih et al. (2015), §Methods
FLAT = 7 * 7 * 64
FULL = [(FLAT, 512)]
SCALAR = ("dqn", "double_dqn", "n_step", "noisy_dqn", "per", "munchausen", "pqn")
LINEARS = {  # (in, out) of the linear maps, in turn; of two streams the value's come first
    **{recipe: [*FULL, (512, ACTIONS)] for recipe in SCALAR},
    **{recipe: [*FULL, (512, 51 * ACTIONS)] for recipe in ("c51", "hl_gauss")},
    "qr_dqn": [*FULL, (512, 200 * ACTIONS)],
    "iqn": [(64, FLAT), *FULL, (512, ACTIONS)],  # the fractions' embedding comes first
    "fqf": [(FLAT, 32), (64, FLAT), *FULL, (512, ACTIONS)],  # the fractions are proposed before
    "dueling": [*FULL, (512, 1), *FULL, (512, ACTIONS)],
    "rainbow": [*FULL, (512, 51), *FULL, (512, 51 * ACTIONS)],
    "rainbow_iqn": [(64, FLAT), *FULL, (512, 1), *FULL, (512, ACTIONS)],
    "der": [(576, 256), (256, 51), (576, 256), (256, 51 * ACTIONS)],
    "btr": [(64, 2304), (2304, 512), (512, 1), (2304, 512), (512, ACTIONS)],
    "drqn": [(512, ACTIONS)],
    "r2d2": [(512, 512), (512, 1), (512, 512), (512, ACTIONS)],
}
NOISY = {"noisy_dqn", "rainbow", "rainbow_iqn", "der", "btr"}  # all linear maps but those that embed fractions
CONVS = {"der": [(32, 5, 5), (64, 5, 5)]}
FRACTIONS = {"iqn", "fqf", "rainbow_iqn", "btr"}
CORES = {"drqn", "r2d2"}


@cache
def composed(recipe, env="atari"):
    return configure(f"algorithm={recipe}", f"env={env}")


@cache
def built(recipe, actions=ACTIONS):
    frames = composed(recipe).env.kwargs.get("stack_num", 4)
    return parts.network(composed(recipe), Spec((frames, 84, 84), np.dtype(np.uint8), actions))


def linears(module):
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def test_every_recipe_that_can_play_atari_is_in_the_table():
    assert {*PUBLISHED} == {*LINEARS} == {*ATARI}
    files = {path.stem.removesuffix("_atari") for path in (CONF / "experiment").glob("*_atari.yaml")}
    assert files == {*ATARI} - {"btr"}  # its paper is about images alone: all of its numbers stand in conf/algorithm


@pytest.mark.parametrize("recipe", ATARI)
def test_an_atari_run_has_the_published_numbers(recipe):
    cfg, published = composed(recipe), EVERYWHERE | PUBLISHED[recipe]
    options = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    for option, (value, source) in published.items():
        got = OmegaConf.select(options, option, default="not there")
        assert got == value, f"{recipe}: {option} is {got}, and {value} in {source}"


@pytest.mark.parametrize("recipe", ATARI)
def test_an_atari_run_has_the_published_network(recipe):
    network = built(recipe)
    assert [(m.in_features, m.out_features) for m in linears(network)] == LINEARS[recipe]
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    if recipe != "btr":
        shapes = [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs]
        assert shapes == CONVS.get(recipe, NATURE_CONVS)
    assert convs[0].in_channels == (1 if recipe == "drqn" else 4)
    norms = [m for m in network.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))]
    assert len(norms) == (4 if recipe == "pqn" else 0)


@pytest.mark.parametrize("recipe", ATARI)
def test_an_atari_run_has_noise_where_it_is_published(recipe):
    network = built(recipe)
    embedding = {id(m) for name, m in network.named_modules() if "embedding" in name}
    maps = [m for m in linears(network) if id(m) not in embedding]
    assert {type(m) is Noisy for m in maps} == {recipe in NOISY}
    assert not any(type(m) is Noisy for m in linears(network) if id(m) in embedding)
    for m in maps if recipe in NOISY else []:
        sigma0, _ = PUBLISHED[recipe]["layer.sigma0"]
        assert torch.allclose(m.weight_sigma, torch.tensor(sigma0 / m.in_features**0.5))


@pytest.mark.parametrize("recipe", ATARI)
def test_fractions_are_multiplied_with_the_convolutions_features(recipe):
    """Dabney et al. (2018b), eq. 4 and fig. 1: before the hidden layer of 512, which is in the output."""
    network = built(recipe)
    assert hasattr(network.head, "embedding") == (recipe in FRACTIONS)
    if recipe in FRACTIONS:
        assert linears(network.torso) == []
        assert network.head.embedding.linear.out_features == network.torso.features
        assert linears(network.head.output)[0].out_features == 512


@pytest.mark.parametrize("recipe", ATARI)
def test_a_core_reads_the_convolutions(recipe):
    """Hausknecht & Stone (2015), §4; Kapturowski et al. (2019), appendix: an LSTM of 512 in place of the full layer."""
    network = built(recipe)
    assert (network.core is not None) == (recipe in CORES)
    if network.core is not None:
        assert isinstance(network.core.cell, nn.LSTMCell)
        assert (network.core.cell.input_size, network.core.cell.hidden_size) == (FLAT, 512)


def parameters(module):
    """How many, without those of the noise."""
    return sum(p.numel() for name, p in module.named_parameters() if "sigma" not in name)


def test_parameters_are_as_many_as_published():
    """Clark et al. (2024), fig. E7, with Atari's 18 actions: 2.91 million, of which 2.52 in linear layers."""
    network = built("btr", 18)
    assert round(parameters(network) / 1e6, 2) == 2.91
    assert round(sum(map(parameters, linears(network))) / 1e6, 2) == 2.52


def test_fractions_of_fqf_learn_at_the_published_rate():
    """Yang et al. (2019): 2.5e-9."""
    learner = parts.learner(
        composed("fqf"), built("fqf"), Spec((4, 84, 84), np.dtype(np.uint8), ACTIONS), torch.device("cpu")
    )
    assert [group["lr"] for group in learner.optimizer.param_groups] == pytest.approx([5e-5, 2.5e-9])


def test_the_target_of_r2d2_is_2500_updates_old_however_often_it_learns():
    for every in ([], ["train_every=256"]):
        cfg = configure("algorithm=r2d2", "env=atari", *every)
        assert cfg.target.period == 2500 * cfg.train_every


def test_epsilon_of_btr_is_the_authors():
    """Exponential, after 8 M frames a factor of e nearer to its end, and 0 from 100 M frames on; four to a decision."""
    schedule = instantiate(composed("btr").exploration).rate
    assert isinstance(schedule, Exponential)
    assert schedule(2_000_000) == pytest.approx(0.01 + 0.99 / np.e, abs=1e-6)
    assert [schedule(25_000_000 - 1) > 0.01, schedule(25_000_000)] == [True, 0.0]


@pytest.mark.parametrize("recipe", ["per", "rainbow", "rainbow_iqn"])
def test_the_importance_exponent_reaches_its_end_with_the_run_whatever_its_length(recipe):
    """Schaul et al. (2016), §3.4."""
    cfg = configure(f"algorithm={recipe}", "env=atari", "steps=50000000")
    exponent = instantiate(cfg.replay.sampler.importance_exponent)
    assert [exponent(t) for t in (0, 25_000_000, 50_000_000)] == pytest.approx([0.4, 0.7, 1.0])


@pytest.mark.parametrize("recipe", ATARI)
def test_every_number_of_a_recipe_says_where_it_is_from(recipe):
    """Each line with a value is marked as the paper's, the authors' code's or ours."""
    neither = (
        "for_pair:",
        "- ",
        "_target_:",
        "_partial_:",
        "updates:",
        "learning_starts: 0",
        "n_step: 1\n",
        "train_every: ${mul",
    )
    for path in (CONF / "algorithm" / f"{recipe}.yaml", CONF / "experiment" / f"{recipe}_atari.yaml"):
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        values = [line for line in lines if re.match(r"\s*[\w_]+: *[^\s#]", line) and not line.startswith("#")]
        unmarked = [line for line in values if not re.search(r"# (paper|authors' code|ours)\b", line)]
        assert [line for line in unmarked if not line.strip(" ").startswith(neither)] == []


PARTS = {"normalizer", "torso", "core", "layer", "output", "head", "backup", "transform", "terms", "replay",
         "exploration", "target", "optimizer", "chosen", "dense_in", "run"}  # fmt: skip
CARTPOLE = {  # the numbers in which a recipe differs from dqn there, but for those of its parts
    "dqn": {}, "double_dqn": {}, "dueling": {}, "c51": {}, "qr_dqn": {}, "iqn": {}, "fqf": {}, "munchausen": {},
    "hl_gauss": {}, "per": {},
    "n_step": {"n_step": 3},
    "noisy_dqn": {"tuned.dense": "Noisy", "tuned.mlp_layer": "Noisy"},
    "rainbow": {"n_step": 3, "tuned.priority_exponent": 0.5, "tuned.dense": "Noisy"},
    "rainbow_iqn": {"n_step": 3, "tuned.priority_exponent": 0.2, "tuned.dense": "Noisy", "tuned.epsilon_end": 0.0},
    "der": {
        "n_step": 20, "train_every": 1, "learning_starts": 1600, "tuned.lr": 1e-4, "tuned.eps": 1.5e-4,
        "tuned.priority_exponent": 0.5, "tuned.batch_size": 32, "tuned.target_period": 2000, "tuned.dense": "Noisy",
        "tuned.mlp_layer": "Noisy",
        "tuned.sigma0": 0.1,
    },
    "btr": {
        "gamma": 0.997, "n_step": 3, "train_every": 64, "learning_starts": 200_000, "env.num_envs": 64,
        "tuned.samples": 8, "tuned.lr": 1e-4, "tuned.eps": 1.95e-5,
        "tuned.priority_exponent": 0.2, "tuned.importance_start": 0.2, "tuned.importance_end": 0.2,
        "tuned.batch_size": 256, "tuned.capacity": 2**20, "tuned.target_period": 32_000, "tuned.epsilon_end": 0.01,
        "tuned.epsilon_steps": 2_000_000, "tuned.epsilon_until": 25_000_000, "tuned.dense": "Noisy",
        "tuned.mlp_layer": "Noisy",
    },
    "pqn": {
        "steps": 100_000, "lambda_": 0.9, "n_step": 1, "train_every": 256, "learning_starts": 0, "passes.epochs": 4,
        "passes.minibatches": 8, "env.num_envs": 8, "lr_schedule.steps": 100_000, "tuned.loss": "squared",
        "tuned.for_pair": "pqn_cartpole", "tuned.epsilon_end": 0.05, "tuned.epsilon_steps": 20_000,
        "tuned.importance_steps": 100_000,
    },
    "drqn": {"tuned.batch_size": 32},
    "r2d2": {
        "env.wrappers.last_step": "LastStep", "tuned.priority_exponent": 0.9,
        "tuned.importance_start": 0.6, "tuned.importance_end": 0.6,
    },
}  # fmt: skip


def numbers(cfg):
    """Every option but those of the parts that are chosen; of a part in it the name."""
    found = {}
    for name in option_names(cfg):
        value = OmegaConf.select(cfg, name, throw_on_missing=False)
        if name.partition(".")[0] in PARTS or name.startswith(("tuned.dense.", "tuned.mlp_layer.")):
            continue
        if not OmegaConf.is_dict(value):
            found[name] = value
        elif "_target_" in value:
            found[name] = value["_target_"].rpartition(".")[2]
    return found


@pytest.mark.parametrize("recipe", ATARI)
def test_numbers_of_atari_stay_there(recipe):
    """On CartPole a recipe has CartPole's numbers and its own, and none that its Atari run has."""
    own, usual = (numbers(composed(name, "cartpole")) for name in (recipe, "dqn"))
    assert {name: value for name, value in own.items() if usual.get(name) != value} == CARTPOLE[recipe]
