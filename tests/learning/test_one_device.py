"""All that an update touches is on the Learner's device, and nothing of it is read by the host.

There need not be a GPU to see that: torch's device "meta" has tensors without values. Whoever asks for a value fails, and so
does whoever takes a tensor of the CPU, even one without dimensions, which a GPU would take and a graph would freeze.
"""

from __future__ import annotations

import pytest
import torch
from family_learners import family_learner, joint_batch
from reference.family_games import FamilyGame, random_family_game
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from rllib_maddpg.learning.finite_checks import DeferredCheck
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.update_noise import CounterNoise

META = torch.device("meta")
KINDS = (("tanh", "discrete", "multi_discrete"), ("softmax", "multi_discrete", "discrete"), ("tanh",), ("discrete",))
SEEDS = range(12)


class OnlyMeta(TorchDispatchMode):
    """Refuses operations with tensors of another device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        check_device(str(func), args, kwargs, result)
        return result


def check_device(what: str, *values) -> None:
    elsewhere = {x.device for x in tree_iter(values) if isinstance(x, torch.Tensor)} - {META}
    assert not elsewhere, f"{what} with a tensor on {elsewhere}"


def check_adam(params, *others, **kwargs) -> None:
    """Refuses what the kernel of a GPU refuses, and that of the CPU does not."""
    check_device("Adam", params, others, kwargs)
    *moments, maxima, steps = others
    for p, *own in zip(params, *moments, strict=True):
        assert all((x.shape, x.stride(), x.dtype) == (p.shape, p.stride(), p.dtype) for x in own), "Adam: another layout"
    scalars = [*steps, kwargs["lr"], kwargs["found_inf"]]
    assert not maxima and all(x.dtype == torch.float32 and x.dim() == 0 for x in scalars), "Adam: no float32"


@pytest.fixture(autouse=True)
def what_meta_lacks(monkeypatch):
    """Adam's fused kernel, and clocks that can be read."""
    monkeypatch.setattr(torch, "_fused_adam_", check_adam)
    monkeypatch.setattr(GroupOptimizer, "_have_one_clock", lambda self: True)


def game_of(seed: int) -> FamilyGame:
    """Also with modules that share networks, that are frozen, that have settings of their own, or see one number."""
    given = {"n_agents": 4, "shared": True} if seed % 3 == 2 else {"per_module": {}} if seed % 3 else {}
    given |= {"obs_dim": 1} if seed % 4 == 1 else {}
    return random_family_game(100 + seed, kinds=KINDS[seed % len(KINDS)], waiting=False, **given)


def move(learner: MADDPGTorchLearner) -> None:
    """To the device "meta", which RLlib has no Learners on."""
    learner._device, moved = META, {}
    for module_id in list(learner.module.keys()):
        before = list(learner.module[module_id].parameters())
        moved.update(zip(before, learner.module[module_id].to(META).parameters(), strict=True))
    for optimizer in learner._named_optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [moved[p] for p in group["params"]]
    learner._noise = CounterNoise(learner._noise.keys(), 0, META)
    learner._temperature = learner._temperature.to(META)
    learner._tie()


@pytest.mark.parametrize("seed", SEEDS)
def test_updates_stay_on_the_device(seed):
    """Those that report, those that do not, and those in which actors wait."""
    game = game_of(seed)
    learner = family_learner(game, double=False, minibatch_per_module=seed % 4 == 3)
    move(learner)
    assert not learner._why_not_mine()
    learner.collects_td_errors = True
    rows = joint_batch(game, learner.schema, game.batch(16, seed), game.newest(12, seed), double=False)
    check = DeferredCheck(len(learner._stages), META, goes_on=bool(seed % 2))
    for updates_to_report in (0, None, 0, None):
        learner._updates_to_report = updates_to_report
        batch = rows.to(META, learner.schema)
        plan = learner.begin_update(batch)
        learner._prepare_steps(plan)
        with OnlyMeta():
            results = learner._make_update(batch, plan, check)
        check_device("metrics", results.metrics.noted, results.td_sums)
        assert results.metrics.noted or updates_to_report is None


def test_what_is_elsewhere_is_noticed():
    x = torch.ones(2, device=META)
    for bad in (
        lambda: x + torch.ones(2),
        lambda: x * torch.tensor(2.0),
        lambda: x.to("cpu"),
        lambda: bool(x.sum() > 0),
        lambda: x.tolist(),
        lambda: x[x > 0],
    ):
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OnlyMeta():
            bad()
