"""Updates of several Learners in one pass are those of each Learner alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tree
from fake_graph import FakeGraph
from family_learners import family_learner
from learner_games import env_steps, weights_of
from on_cuda import NEWEST, config_of_member, difference, doubled, game_of, learner_of, ring_of, same
from reference.family_games import random_family_game

from rllib_maddpg.learning import slot_stack
from rllib_maddpg.learning.learner import MADDPGTorchLearner
from rllib_maddpg.learning.slot_updates import SlotCall, SlotUpdates
from rllib_maddpg.rows.joint_batch import JointBatch

MEMBERS = ("MADDPG", "MATD3", "IDDPG", "InferredMADDPG", "ensembles")
KINDS = ("discrete", "continuous")
# What trials of one stack may differ in.
OWN = (
    {},
    {"lr": 0.003, "tau": 0.05, "gamma": 0.9},
    {"actor_lr": 0.02, "critic_lr": 0.004, "actor_output_reg": 0.1, "grad_clip": 0.2},
    {"gumbel_softmax_temperature": 0.7, "tau": 0.2},
)


class Trial:
    """A Learner with its rows; `k` says which."""

    def __init__(self, k, game, member, double=True, rows=16, learner_class=None, **settings):
        config = config_of_member(member, game, **{**OWN[k % len(OWN)], **settings}).debugging(seed=10 + k)
        if learner_class is not None:
            config.training(learner_class=learner_class)
        self.learner, self.double, self.rows = learner_of(config, double), double, rows
        self.ring = ring_of(game, self.learner.schema, "cpu")
        self.ring.stream.key += 17 * k
        self.results = None
        self.steps = 0

    def as_double(self, batch):
        schema, rows = self.learner.schema, batch.joint_rows
        return doubled(schema, rows) if self.double else JointBatch(schema, rows)

    def begin(self, updates=1, reports=True):
        batch = self.as_double(self.ring.draw(1, updates, self.rows)[0])
        if self.learner.config.needs_newest_rows:
            batch.newest = self.as_double(self.ring.latest(NEWEST))
        self.steps += 60
        return SlotCall(self.learner, self.learner.begin_call(batch, env_steps(self.steps), self.rows, not reports))

    def alone(self, updates=1, reports=True):
        call = self.begin(updates, reports)
        while not call.is_over:
            self.learner._update(self.learner.next_minibatch(call.call))
            self.learner.has_made_update(call.call)
        self.results = self.learner.end_call(call.call) or self.results


class FamilyTrial(Trial):
    """One of a game that says itself which settings its modules have."""

    def __init__(self, k, game):
        self.learner, self.double, self.rows = family_learner(game), True, 16
        self.ring = ring_of(game, self.learner.schema, "cpu")
        self.ring.stream.key += 17 * k
        self.results, self.steps = None, 0


def together(slots, trials, updates=1, reports=True):
    """One call of each trial, in as many passes as the longest has updates."""
    calls = {trial: trial.begin(updates, reports) for trial in trials}
    while left := [call for call in calls.values() if not call.is_over]:
        slots.make(left)
    for trial, call in calls.items():
        if call.error is None:
            trial.results = trial.learner.end_call(call.call) or trial.results
    return {trial: call.error for trial, call in calls.items()}


@pytest.fixture(autouse=True)
def always_as_one(monkeypatch):
    monkeypatch.setattr(slot_stack.SlotStack, "pays", lambda self, due, rows: True)


def trials_of(k, member="MADDPG", kind="discrete", double=True, **settings):
    game = game_of(member, kind)
    return [Trial(i, game, member, double, **settings) for i in range(k)]


def added(trials):
    slots = SlotUpdates()
    for trial in trials:
        slots.add(trial.learner)
    return slots


def numbers(trial):
    return {
        (m, name): float(value.peek())
        for m, own in trial.results.items()
        if m in trial.learner.layout.modules
        for name, value in own.items()
        if not name.startswith("num_") and "throughput" not in name
    }


def assert_equal(one, other, atol):
    for key, theirs in weights_of(other.learner).items():
        assert (weights_of(one.learner)[key] - theirs).norm() <= atol * theirs.norm(), key


# How many trials, of which algorithm, with which actions.
CASES = [
    (1, "MADDPG", "discrete"),
    (3, "MADDPG", "discrete"),
    (3, "MATD3", "discrete"),
    (3, "IDDPG", "continuous"),
    (3, "InferredMADDPG", "discrete"),
    (3, "InferredMADDPG", "continuous"),
    (8, "MADDPG", "continuous"),
    (3, "ensembles", "discrete"),
]


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(("k", "member", "kind"), CASES)
def test_trials_in_one_pass_are_each_alone(k, member, kind, double):
    """To 1e-8 after 200 updates in float64, to 1e-4 after 20 in float32; metrics, too."""
    ours, alone = (trials_of(k, member, kind, double) for _ in range(2))
    # Approximations that see the same few rows again and again make of 1e-15 a difference of 1e-9 within 70 updates.
    calls = 50 if double and member != "InferredMADDPG" else 5
    slots = added(ours)
    start = [weights_of(trial.learner) for trial in alone]
    for call in range(calls):
        reports = call % 7 == 4
        assert not any(together(slots, ours, 4, reports).values())
        for trial in alone:
            trial.alone(4, reports)
    atol = 1e-8 if double else 1e-4
    assert slots.updates == k * slots.passes and slots.passes == 4 * calls
    for one, other, before in zip(ours, alone, start, strict=True):
        assert_equal(one, other, atol)
        assert all((value - before[key]).norm() > 50 * atol for key, value in weights_of(other.learner).items())
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-6 if double else 1e-2, abs=1e-7 if double else 1e-3)
        assert difference(one.learner, other.learner) <= atol
    if k > 1:
        assert difference(ours[0].learner, ours[1].learner) > 1e-3, "all slots are the same"


def run_both(ours, alone, slots, due_of, calls, updates=1):
    """Calls of the trials that are due in each, in one pass and alone; every third one reports."""
    for call in range(calls):
        due = due_of(call)
        errors = together(slots, [ours[i] for i in due], updates, call % 3 == 2)
        assert not any(errors.values()), errors
        for i in due:
            alone[i].alone(updates, call % 3 == 2)


@pytest.mark.parametrize("member", ["MADDPG", "MATD3"])
def test_who_is_due_changes_from_pass_to_pass(member):
    """Trials of other batch sizes and ratios; nobody's update changes anything of another one."""
    game = game_of(member, "discrete")
    ours, alone = ([Trial(k, game, member, rows=(16, 8, 16, 5)[k]) for k in range(4)] for _ in range(2))
    slots, rng = added(ours), np.random.default_rng(0)
    run_both(ours, alone, slots, lambda call: [i for i in range(4) if rng.random() < 0.6], 20)
    assert slots.passes < slots.updates, "nobody was made as one"
    for one, other in zip(ours, alone, strict=True):
        assert one.learner._num_updates == other.learner._num_updates > 5
        assert_equal(one, other, 1e-8)


def test_a_trial_that_is_not_due_stays_as_it_is_bit_for_bit():
    ours = trials_of(3)
    slots = added(ours)
    together(slots, ours)
    before, state = weights_of(ours[1].learner), ours[1].learner.get_state()
    together(slots, [ours[0], ours[2]], 3)
    assert same(weights_of(ours[1].learner), before)
    after = ours[1].learner.get_state()
    numbers_of = [[np.asarray(x) for x in tree.flatten(each["optimizer"])] for each in (state, after)]
    assert len(numbers_of[0]) > 50 and all(np.array_equal(x, y) for x, y in zip(*numbers_of, strict=True))


def test_trials_come_and_go():
    """Places are taken again, the stack grows, and who stays goes on as alone."""
    game = game_of("MADDPG", "continuous")
    ours, alone = ([Trial(k, game, "MADDPG") for k in range(5)] for _ in range(2))
    slots = SlotUpdates()
    present: list[int] = []
    for come, go in (([0], []), ([1], []), ([2], [0]), ([3, 4], []), ([], [1, 3]), ([], [4])):
        for i in go:
            assert_equal(ours[i], alone[i], 1e-8)
            slots.remove(ours[i].learner)
            present.remove(i)
        for i in come:
            slots.add(ours[i].learner)
            present.append(i)
        run_both(ours, alone, slots, lambda call: list(present), 3)
    assert ours[2].learner._num_updates == alone[2].learner._num_updates == 12
    assert_equal(ours[2], alone[2], 1e-8)
    slots.remove(ours[2].learner)
    assert not slots._stacks and not slots._places


def test_a_trial_goes_on_from_the_state_of_another():
    """As population based training does it: weights, moments and clocks are copied into the slot."""
    ours, alone = trials_of(3), trials_of(3)
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1, 2], 5)
    for trials in (ours, alone):
        trials[2].learner.set_state(trials[0].learner.get_state())
    run_both(ours, alone, slots, lambda call: [0, 1, 2], 5)
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)
    passes = slots.passes
    together(slots, ours)
    assert slots.passes == passes + 1, "it has lost its place"


def test_states_go_from_a_slot_to_a_learner_alone():
    ours, alone = trials_of(2), trials_of(2)
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1], 4)
    fresh = trials_of(2)
    for trial, one in zip(fresh, ours, strict=True):
        trial.learner.set_state(one.learner.get_state())
        trial.ring.set_state(one.ring.get_state())
        trial.steps = one.steps
        trial.alone(3)
    for trial in alone:
        trial.alone(3)
    for trial, other in zip(fresh, alone, strict=True):
        assert_equal(trial, other, 1e-7)  # RLlib restores weights in single precision


def with_nan(trial, from_update=0):
    """Makes one of the trial's rewards NaN in all its rows."""
    trial.ring._columns["rewards"][:, 0] = torch.nan
    return trial


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_nan_of_one_trial_is_its_own(graph):
    learner_class = GraphLearner if graph else None
    ours, alone = (trials_of(3, learner_class=learner_class) for _ in range(2))
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1, 2], 5)
    for trials in (ours, alone):
        with_nan(trials[1])
    before = weights_of(ours[1].learner)
    errors = together(slots, ours, 2)
    with pytest.raises(ValueError, match="NaN") as expected:
        alone[1].alone(2)
    assert isinstance(errors[ours[1]], ValueError) and str(errors[ours[1]]) == str(expected.value)
    assert errors[ours[0]] is errors[ours[2]] is None
    assert same(weights_of(ours[1].learner), before)
    assert ours[1].learner._num_updates == alone[1].learner._num_updates
    for k in (0, 2):
        alone[k].alone(2)
    run_both(ours, alone, slots, lambda call: [0, 2], 3)
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


def test_updates_with_nan_are_skipped_and_counted():
    ours, alone = trials_of(2), trials_of(2)
    for trial in (*ours, *alone):
        trial.learner.config.framework(torch_skip_nan_gradients=True)
        trial.learner.collects_td_errors = True
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1], 3)
    for trials in (ours, alone):
        with_nan(trials[1])
    before = weights_of(ours[1].learner)
    run_both(ours, alone, slots, lambda call: [0, 1], 3)
    assert same(weights_of(ours[1].learner), before)
    assert_equal(ours[0], alone[0], 1e-8)
    key = "num_updates_skipped_lifetime"
    errors = [trial.learner.take_td_errors() for trial in (ours[1], alone[1])]
    assert len(errors[0]) == 16 and np.array_equal(*errors)
    counts = [[float(own[key].peek()) for m, own in t.results.items() if key in own] for t in (ours[1], alone[1])]
    assert counts[0] == counts[1] and counts[0]


class GraphLearner(MADDPGTorchLearner):
    """With graphs that need no GPU."""

    graph_class = FakeGraph


@pytest.mark.parametrize("member", MEMBERS)
def test_passes_are_recorded_once_for_each_kind(member, monkeypatch):
    captured = []
    capture = FakeGraph.capture
    monkeypatch.setattr(FakeGraph, "capture", lambda self, work: captured.append(1) or capture(self, work))
    game = game_of(member, "discrete")
    alone = [Trial(k, game, member, rows=8) for k in range(4)]
    ours = [Trial(k, game, member, rows=8, learner_class=GraphLearner) for k in range(4)]
    for k in range(4):
        ours[k].learner.set_state(alone[k].learner.get_state())
    slots, rng = added(ours), np.random.default_rng(1)
    run_both(ours, alone, slots, lambda call: [i for i in range(4) if rng.random() < 0.7], 24)
    # With reports and without; with actors and without where they wait (`policy_delay`), in which all may not be due at once.
    assert 2 <= len(captured) <= 4
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


@pytest.mark.parametrize(
    "settings",
    [
        {"others_actions": "current"},
        {"critic_loss": "mse"},
        {"critic_loss": "huber"},
        {"grad_clip_by": "norm"},
        {"grad_clip": None},
        {"lr": [[0, 0.01], [600, 0.001]]},
        {"target_network_update_freq": 100},
    ],
    ids=str,
)
def test_settings(settings):
    ours, alone = trials_of(3, **settings), trials_of(3, **settings)
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1, 2], 12)
    assert slots.passes == 12
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


@pytest.mark.parametrize("given", [{"shared": True, "n_agents": 4}, {"frozen": True}, {"dead": False}], ids=str)
def test_games_of_other_shapes(given):
    game = game_of("MADDPG", "discrete", **given)
    ours, alone = ([Trial(k, game, "MADDPG") for k in range(3)] for _ in range(2))
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 2] if call % 2 else [0, 1, 2], 12)
    assert slots.passes == 12
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


def test_td_errors_are_kept_for_whom_they_are():
    ours, alone = trials_of(3), trials_of(3)
    for trials in (ours, alone):
        trials[1].learner.collects_td_errors = True
    run_both(ours, alone, added(ours), lambda call: [0, 1, 2], 3, updates=2)
    errors = [trial.learner.take_td_errors() for trial in (ours[1], alone[1])]
    assert errors[0].shape == (32,) and np.abs(errors[0]).max() > 0.1
    np.testing.assert_allclose(*errors, rtol=1e-6)
    assert not len(ours[0].learner.take_td_errors())


class OwnLoss(MADDPGTorchLearner):
    """A user's."""

    def critic_loss(self, q, target, rows, settings):
        return 2.0 * super().critic_loss(q, target, rows, settings)


@pytest.mark.parametrize("why", ["own loss", "minibatch_per_module"])
def test_who_cannot_be_with_others_is_made_alone(why):
    settings = {"minibatch_per_module": True} if why == "minibatch_per_module" else {}
    learner_class = OwnLoss if why == "own loss" else None
    ours, alone = (trials_of(2, rows=15, learner_class=learner_class, **settings) for _ in range(2))
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1], 4)
    assert slots.passes == slots.updates == 8
    for one, other in zip(ours, alone, strict=True):
        assert same(weights_of(one.learner), weights_of(other.learner))


def test_networks_of_other_shapes_are_another_stack():
    game = game_of("MADDPG", "discrete")
    ours = [Trial(k, game, "MADDPG", critic_loss=loss) for k, loss in enumerate(("mse", "huber", "mse"))]
    slots = added(ours)
    together(slots, ours)
    assert (slots.passes, slots.updates) == (2, 3)


def of_an_old_version(state):
    """The state with the generator from which older versions had their noise."""
    state = {key: value for key, value in state.items() if key != "noise_keys"}
    return state | {"gumbel_rng": torch.Generator().manual_seed(3).get_state().numpy()}


def test_who_has_to_leave_takes_all_with_it():
    """A Learner that cannot be with others any more lies by itself, and not where the next one comes."""
    game = game_of("MADDPG", "discrete")
    ours, alone = ([Trial(k, game, "MADDPG") for k in range(3)] for _ in range(2))
    slots = added(ours[:2])
    run_both(ours, alone, slots, lambda call: [0, 1], 3)
    for trials in (ours, alone):
        trials[0].learner.set_state(of_an_old_version(trials[0].learner.get_state()))
    run_both(ours, alone, slots, lambda call: [0, 1], 3)
    slots.add(ours[2].learner)
    run_both(ours, alone, slots, lambda call: [0, 1, 2], 3)
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


def test_other_options_of_adam_are_another_stack():
    ours, alone = trials_of(2), trials_of(2)
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: [0, 1], 2)
    for trials in (ours, alone):
        for optimizer in trials[1].learner._named_optimizers.values():
            optimizer.param_groups[0]["eps"] = 1e-2
    slots.look_again(ours[1].learner)
    passes = slots.passes
    run_both(ours, alone, slots, lambda call: [0, 1], 3)
    assert slots.passes == passes + 6
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


def test_stacks_become_smaller_when_most_have_left():
    game = game_of("MADDPG", "discrete")
    ours, alone = ([Trial(k, game, "MADDPG") for k in range(5)] for _ in range(2))
    slots = added(ours)
    run_both(ours, alone, slots, lambda call: range(5), 2)
    (stack,) = slots._stacks.values()
    assert len(stack.learners) == 8
    for k in (0, 1, 2):
        slots.remove(ours[k].learner)
    run_both(ours, alone, slots, lambda call: [3, 4], 3)
    (stack,) = slots._stacks.values()
    assert [learner is not None for learner in stack.learners] == [True, True, False, False]
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


def test_graphs_of_its_own_are_not_those_of_its_old_place(monkeypatch):
    """Updates alone between passes, also after the stack has grown."""
    game = game_of("MADDPG", "discrete")
    ours = [Trial(k, game, "MADDPG", learner_class=GraphLearner) for k in range(3)]
    alone = [Trial(k, game, "MADDPG") for k in range(3)]
    for k in range(3):
        ours[k].learner.set_state(alone[k].learner.get_state())
    slots = added(ours[:1])
    as_one = [False]
    monkeypatch.setattr(slot_stack.SlotStack, "pays", lambda self, due, rows: as_one[0])
    for k in range(3):
        if k:
            slots.add(ours[k].learner)
        for as_one[0] in (False, True, False):
            run_both(ours, alone, slots, lambda call, k=k: range(k + 1), 4)
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_random_games(seed):
    """With shared and frozen modules, the dead, settings by module, own views, delays, approximations."""
    kinds = ("tanh", "discrete", "multi_discrete") if seed % 2 else ("softmax", "multi_discrete", "discrete")
    game = random_family_game(300 + seed, kinds=kinds, waiting=False)
    ours, alone = ([FamilyTrial(k, game) for k in range(3)] for _ in range(2))
    slots, rng = added(ours), np.random.default_rng(seed)
    run_both(ours, alone, slots, lambda call: [k for k in range(3) if rng.random() < 0.7], 12)
    for one, other in zip(ours, alone, strict=True):
        assert_equal(one, other, 1e-8)
