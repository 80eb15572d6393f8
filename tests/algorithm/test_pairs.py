"""Each pair of the family's members and ways of training trains, or is refused with its reason."""

import math
import re

import pytest
import torch
from pairs import AGENTS, FEATURES, PAIRS, REFUSED, SHARED, config_of, refused_config, table
from paths import ROOT
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE

from rllib_maddpg.shared.life import SharedLearner

IN_ACTORS = {"2 Learners", "shards", "pipelined runners", "shared Learner"}
ALLOWED = [pair for pair in PAIRS if frozenset(pair) not in REFUSED]


@pytest.fixture(scope="module")
def shared_learner(ray_session):
    with SharedLearner(SHARED) as shared:
        yield shared


def trains(algo):
    """Updates are made, and change every network that learns; all numbers are finite."""
    modules = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"

    def weights():
        return algo.learner_group.get_state(modules)[COMPONENT_LEARNER][COMPONENT_RL_MODULE]

    before, updates = weights(), 0
    for _ in range(4):
        result = algo.train()
    updates = result["learners"]["__all_modules__"]["num_updates_lifetime"]
    assert updates >= 12
    after = weights()
    for module in {algo.config.policy_mapping_fn(agent, None) for agent in AGENTS}:
        learned = result["learners"][module]
        assert math.isfinite(learned["critic_loss"]) and math.isfinite(learned["actor_loss"])
        for name, old in before[module].items():
            new = torch.as_tensor(after[module][name])
            assert torch.isfinite(new.double()).all(), name
            if name.endswith("weight") and new.numel():
                assert not torch.equal(torch.as_tensor(old), new), f"{name} of {module} has not changed"


@pytest.mark.parametrize("pair", [p for p in ALLOWED if IN_ACTORS.isdisjoint(p)], ids=" and ".join)
def test_pair_trains(pair, build):
    algo = build(config_of(pair))
    trains(algo)
    if "CUDA graphs" in pair:
        kinds = algo.learner_group._learner._graphs._kinds.values()
        assert sum(kind.graph.replays for kind in kinds) > 3


@pytest.mark.slow
@pytest.mark.parametrize("pair", [p for p in ALLOWED if not IN_ACTORS.isdisjoint(p)], ids=" and ".join)
def test_pair_trains_in_actors(pair, build, request):
    if "shared Learner" in pair:
        request.getfixturevalue("shared_learner")
    trains(build(config_of(pair)))


WAYS = [
    (),
    ("CUDA graphs",),
    ("pipelined runners", "shards"),
    ("shards", "2 Learners"),
    ("pipelined runners", "shared Learner"),
]
MEMBERS = [name for name in FEATURES if name not in IN_ACTORS | {"CUDA graphs", "images"}]
# All that go together.
TEAMS = {"n-step": [m for m in MEMBERS if m != "turns"], "turns": [m for m in MEMBERS if m != "n-step"]}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * bool(IN_ACTORS.intersection(way))) for way in WAYS], ids=" and ".join
)
@pytest.mark.parametrize("team", TEAMS)
def test_all_together(way, team, build, request):
    if "shared Learner" in way:
        request.getfixturevalue("shared_learner")
    trains(build(config_of((*TEAMS[team], *way))))


@pytest.mark.parametrize("team", TEAMS)
def test_images_and_all_that_go_with_them(team, build):
    """Masks stand in Dicts, where images are vectors: so the team is a mixed one."""
    others = [name for name in TEAMS[team] if frozenset((name, "images")) not in REFUSED]
    trains(build(config_of((*others, "images", "CUDA graphs"))))


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: " and ".join(sorted(pair)))
def test_pair_is_refused(pair):
    key, said = REFUSED[pair][:2]
    with pytest.raises(ValueError, match=re.escape(f"`{key}`")) as error:
        refused_config(pair).validate()
    assert said in str(error.value)


def test_each_pair_is_one_or_the_other():
    assert len(PAIRS) == len(FEATURES) * (len(FEATURES) - 1) // 2
    assert {frozenset(pair) for pair in PAIRS} >= set(REFUSED)


def test_the_table_of_the_docs_is_that_of_the_tests():
    assert table() in (ROOT / "docs/family.md").read_text(), "Put what `python tests/helpers/pairs.py` prints there."
