"""MATD3's three parts, each as its paper has it. Numbers of whole updates: test_family_updates.py."""

from __future__ import annotations

import pickle

import pytest
import torch
from family_learners import family_config, family_learner, joint_batch, next_update
from learner_games import build, env_steps, parameters, weights_of
from reference.family_games import FamilyGame, random_family_game

from rllib_maddpg.learning.update_noise import CounterNoise

PLAIN = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False, "critic_view": "all"}


def game_of(seed=2, kinds=("tanh", "discrete"), **hyper) -> FamilyGame:
    hyper = {**PLAIN, "twin_q": True, "grad_clip": None, "critic_loss": "mse", **hyper}
    return random_family_game(
        seed, n_agents=3, kinds=kinds, shared=False, frozen=False, dead=True, waiting=False, per_module={}, hyper=hyper
    )


def differing(one: dict, other: dict) -> set:
    return {key for key in one if not torch.equal(one[key], other[key])}


def critic_step(game: FamilyGame, learner, k: int = 0) -> dict:
    """The weights after an update on the game's rows number k."""
    learner._uncompiled_update(next_update(game, learner, k)[0])
    return weights_of(learner)


# ---------------------------------------------------------------------------------------------------------------------
# Twins.


@pytest.mark.parametrize("smaller", ["target_critic", "target_twin_critic"])
def test_both_critics_learn_the_smaller_target(smaller):
    """A target that is far below the other one is the only one that counts; what the other one says is nobody's business."""
    game = game_of()
    larger = {"target_critic": "target_twin_critic", "target_twin_critic": "target_critic"}[smaller]

    def learned(offsets):
        learner = family_learner(game)
        with torch.no_grad():
            for net, offset in offsets.items():
                for m in game.modules:
                    parameters(learner, m, net)[-1].add_(offset)
        return {key: value for key, value in critic_step(game, learner).items() if key[1] in ("critic", "twin_critic")}

    expected = learned({smaller: -50.0})
    assert differing(learned({smaller: -50.0, larger: 50.0}), expected) == set()
    assert differing(learned({smaller: -51.0}), expected) == set(expected)


def test_twins_start_apart():
    """Two equal critics would stay equal, and their minimum would be nothing new."""
    learner = build(family_config(game_of()))
    start = weights_of(learner)
    for m in ("m0", "m1", "m2"):
        assert not torch.equal(start[m, "critic"], start[m, "twin_critic"])
        assert torch.equal(start[m, "critic"], start[m, "target_critic"])
        assert torch.equal(start[m, "twin_critic"], start[m, "target_twin_critic"])


def test_actors_climb_the_first_critic():
    game = game_of(others_actions="replay")

    def actors(net):
        learner = family_learner(game)
        with torch.no_grad():
            for m in game.modules:
                for param in parameters(learner, m, net):
                    param.mul_(-1.0)
        return {key: value for key, value in critic_step(game, learner).items() if key[1] == "actor"}

    expected = {key: value for key, value in critic_step(game, family_learner(game)).items() if key[1] == "actor"}
    assert differing(actors("twin_critic"), expected) == set()
    assert differing(actors("critic"), expected) == set(expected)


# ---------------------------------------------------------------------------------------------------------------------
# Delay.


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_actors_and_targets_wait_together(delay):
    game = game_of(policy_delay=delay)
    learner = family_learner(game)
    for k in range(1, 7):
        before = weights_of(learner)
        moved = differing(critic_step(game, learner, k), before)
        waiting = set() if k % delay == 0 else {key for key in before if key[1] == "actor" or key[1].startswith("target_")}
        assert moved == set(before) - waiting, k


def test_the_count_goes_on_after_a_restore():
    """The state is taken after three of updates of which every second has actors: the next one has."""
    game = game_of(policy_delay=2, target_policy_noise=0.2)
    learner = build(family_config(game), game)

    def train(learner, k):
        before = weights_of(learner)
        joint, _ = next_update(game, learner, k, double=False)
        learner.update(batch=joint, timesteps=env_steps(k))
        return weights_of(learner), any(net == "actor" for _, net in differing(weights_of(learner), before))

    due = [train(learner, k)[1] for k in range(3)]
    state = pickle.loads(pickle.dumps(learner.get_state()))
    restored = build(family_config(game).debugging(seed=8))
    restored.set_state(state)
    for k in range(3, 6):
        expected, learned = train(learner, k)
        ours, learned_there = train(restored, k)
        assert differing(ours, expected) == set() and learned == learned_there
        due.append(learned)
    assert due == [False, True] * 3


def test_delayed_targets_also_keep_to_their_env_steps():
    game = game_of(policy_delay=2)
    learner = build(family_config(game, target_network_update_freq=100, tau=1.0), game)
    for k, (steps, due) in enumerate([(100, False), (110, True), (230, False), (240, True), (300, False), (330, False)], 1):
        before = weights_of(learner)
        joint, _ = next_update(game, learner, k, double=False)
        learner.update(batch=joint, timesteps=env_steps(steps))
        moved = {net for _, net in differing(weights_of(learner), before)}
        assert ("target_actor" in moved) == ("target_twin_critic" in moved) == due, steps
        assert ("actor" in moved) == (k % 2 == 0)


# ---------------------------------------------------------------------------------------------------------------------
# Smoothing.


@pytest.mark.parametrize("kinds", [("tanh",), ("softmax",), ("discrete",)])
def test_noise_is_clipped(kinds):
    """However wide, it stays within the clip; without one, targets would be others'."""
    game = game_of(5, kinds)
    plain = losses_by(game, target_policy_noise=0.0)
    narrow = losses_by(game, target_policy_noise=1e3, target_noise_clip=1e-9)
    wide = losses_by(game, target_policy_noise=1e3, target_noise_clip=3.0)
    for m in game.modules:
        assert narrow[m] == pytest.approx(plain[m], rel=1e-7)
        assert wide[m] != pytest.approx(plain[m], rel=1e-4)


def losses_by(game: FamilyGame, k: int = 0, **settings) -> dict[str, float]:
    learner = family_learner(game, **settings)
    learner._updates_to_report = 0
    critic_step(game, learner, k)
    return {m: float(learner._update_metrics.noted[m, "critic_loss"]) for m in game.modules}


def test_smoothed_boxes_stay_boxes():
    """Noise far beyond them puts codes at -1 and 1, however far beyond."""
    game = game_of(5, ("tanh",))
    one, other = (losses_by(game, target_policy_noise=noise, target_noise_clip=1e9) for noise in (1e5, 1e8))
    assert one == pytest.approx(other, rel=1e-6)


def test_noise_is_drawn_for_each_row_and_update():
    """The mean over rows of one shift for all of them would not show it: equal rows get unequal targets."""
    game = game_of(5, ("tanh",), target_policy_noise=0.3, policy_delay=2)
    rows = game.batch(1, 4)
    same = {a: type(r)(**{name: v.expand(16, *v.shape[1:]).clone() for name, v in vars(r).items()}) for a, r in rows.items()}
    for r in same.values():
        r.terminated.zero_()
        r.alive.fill_(1.0)
        r.next_acting.fill_(1.0)
    seen = []
    for noise in (0.0, 0.3):
        learner = family_learner(game, target_policy_noise=noise, critic_lr=0.0)
        learner.collects_td_errors = True
        for _ in range(2):
            learner.update(batch=joint_batch(game, learner.schema, same, None), timesteps=env_steps(0))
            seen.append(torch.from_numpy(learner.take_td_errors()))
    still, still_too, first, second = seen
    assert len(still.unique()) == 1 and torch.equal(still, still_too)
    assert len(first.unique()) == 16 and len(torch.cat([first, second]).unique()) == 32


def test_no_noise_draws_no_numbers(monkeypatch):
    """Plain MADDPG pays for no noise on target actions."""
    asked, draw = [], CounterNoise.draw
    monkeypatch.setattr(CounterNoise, "draw", lambda self, kind, *more: asked.append(kind) or draw(self, kind, *more))
    game = game_of(3, ("tanh",), target_policy_noise=0.0)
    critic_step(game, family_learner(game))
    assert asked == []
    critic_step(game, family_learner(game, target_policy_noise=0.1))
    assert asked == ["normal"]
