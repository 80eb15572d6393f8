"""The oracle of the other tests against finite differences, torch.optim and numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from finite_differences import central_differences
from reference.maddpg import (
    NETS,
    Adam,
    AgentRows,
    Box,
    Discrete,
    Hyper,
    MultiDiscrete,
    ReferenceMADDPG,
    clip_gradients,
    flat,
    greedy_action,
    mlp,
    pointwise_loss,
    random_game,
    random_layers,
    straight_through,
    unflat,
)
from reference.markov_games import (
    AGENTS,
    CLIMBING_PAYOFF,
    ClimbingGame,
    TwoAgentChain,
    all_transitions,
    chain_game,
    exact_q,
)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(a, b, tol=1e-12):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol, check_dtype=True)


def same_layers(a, b):
    return all(torch.equal(p, q) for p, q in zip(flat(a), flat(b), strict=True))


# Gradients.


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("others", ["replay", "current"])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_gradients_are_those_of_finite_differences(shared, others, loss):
    game = random_game(
        3,
        n_agents=3,
        kinds=[Box(2, "tanh"), Box(3, "softmax")],
        shared=shared,
        dead=True,
        waiting=True,
        frozen=False,
        activation="tanh",
        hidden=[3],
        hyper={"policy_reg": 0.3, "critic_loss": loss, "others_actions": others, "grad_clip": 0.05},
    )
    batch, noise = game.batch(4, 0), game.noise(4, 0)
    old, new = game.reference(), game.reference()
    record = new.update(batch, noise)
    # The actor's gradient is by the new critics and the old actors.
    between = game.reference()
    for m in game.modules:
        between.weights[m]["critic"] = record.weights[m]["critic"]
    assert (len(game.modules) < 3) == shared
    for m in game.modules:
        by_hand = central_differences(lambda w, m=m: old.critic_loss(m, batch, w), old.weights[m]["critic"])
        close(record.critic_grads[m], by_hand, 1e-8)
        by_hand = central_differences(lambda w, m=m: between.actor_loss(m, batch, noise, w), old.weights[m]["actor"])
        close(record.actor_grads[m], by_hand, 1e-8)


def test_straight_through_gradient_is_that_of_the_soft_sample_at_the_hard_one():
    game = random_game(
        5,
        n_agents=2,
        kinds=[MultiDiscrete((2, 3)), Discrete(3)],
        shared=False,
        dead=False,
        waiting=False,
        frozen=False,
        activation="tanh",
        hidden=[3],
        hyper={"policy_reg": 0.2, "others_actions": "current", "gumbel_softmax_temperature": 0.7},
    )
    size = 3
    batch, noise = game.batch(size, 0), game.noise(size, 0)
    reference = game.reference()
    me, other = game.agents
    kind, m = game.kinds[me], game.module_of[me]

    def soft(w):
        logits = mlp(w, batch[me].obs, "tanh")
        parts = zip(logits.split(kind.parts, 1), noise[me].split(kind.parts, 1), strict=True)
        return torch.cat([torch.softmax((part + g) / 0.7, dim=1) for part, g in parts], dim=1)

    def hard(agent, w):
        logits = mlp(w, batch[agent].obs, "tanh") + noise[agent]
        parts = logits.split(game.kinds[agent].parts, 1)
        return torch.cat([torch.eye(p.shape[1], dtype=torch.float64)[p.argmax(1)] for p in parts], dim=1)

    weights = reference.weights[m]["actor"]
    code, code_of_other = hard(me, weights), hard(other, reference.weights[game.module_of[other]]["actor"])
    obs = {j: batch[j].obs for j in game.agents}
    # dQ/d(action code) at the hard sample, by finite differences.
    slope = torch.zeros_like(code)
    for index in np.ndindex(*code.shape):
        q = []
        for step in (1e-5, -1e-5):
            moved = code.clone()
            moved[index] += step
            q.append(reference.q_value(me, obs, {me: moved, other: code_of_other})[index[0]])
        slope[index] = (q[0] - q[1]) / 2e-5

    def surrogate(w):
        reg = 0.2 * (mlp(w, batch[me].obs, "tanh") ** 2).mean(dim=1)
        return (-(slope * soft(w)).sum(dim=1) + reg).sum() / size

    actor = unflat([p.clone().requires_grad_(True) for p in flat(weights)])
    loss = reference.actor_loss(m, batch, noise, actor)
    q = reference.q_value(me, obs, {me: code, other: code_of_other})
    close(loss.detach(), (-q + 0.2 * (mlp(weights, obs[me], "tanh") ** 2).mean(dim=1)).mean())
    grads = list(torch.autograd.grad(loss, flat(actor)))
    close(grads, central_differences(surrogate, weights), 1e-8)


def test_actions():
    out = t([1.0, -2.0, 0.5], [0.0, 0.0, 3.0])
    close(greedy_action(Box(3), out), torch.tanh(out))
    third = np.exp([0.0, 0.0, 3.0]) / (2 + np.exp(3.0))
    close(greedy_action(Box(3, "softmax"), out)[1], torch.tensor(2 * third - 1))
    close(greedy_action(Discrete(3), out), t([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
    out = t([1.0, 2.0, 5.0, 4.0, 3.0])
    close(greedy_action(MultiDiscrete((2, 3)), out), t([0.0, 1.0, 1.0, 0.0, 0.0]))
    noise = t([1.5, 0.0, 0.0, 0.0, 2.5])
    close(straight_through(MultiDiscrete((2, 3)), out, noise, 0.5), t([1.0, 0.0, 0.0, 0.0, 1.0]))


def test_pointwise_losses():
    e = torch.linspace(-3, 3, 25, dtype=torch.float64)
    zero = torch.zeros_like(e)
    close(pointwise_loss(Hyper(critic_loss="mse"), e), torch.nn.functional.mse_loss(e, zero, reduction="none"))
    huber = torch.nn.functional.huber_loss(e, zero, reduction="none", delta=0.7)
    close(pointwise_loss(Hyper(critic_loss="huber", huber_delta=0.7), e), huber)


# Clipping and Adam.


def test_clipping_by_hand():
    grads = [t([3.0, -4.0]), t(12.0)]  # norms 5 and 12, together 13
    assert clip_gradients(grads, None, "global_norm") == grads
    scale = 6.5 / 13.000001
    close(clip_gradients(grads, 6.5, "global_norm"), [t([3 * scale, -4 * scale]), t(12 * scale)])
    close(clip_gradients(grads, 20.0, "global_norm"), grads, 0)
    close(clip_gradients(grads, 6.0, "norm"), [t([3.0, -4.0]), t(12 * 6 / 12.000001)])
    close(clip_gradients(grads, 3.5, "value"), [t([3.0, -3.5]), t(3.5)], 0)


def test_adam_is_that_of_torch():
    rng = np.random.default_rng(0)
    layers = random_layers(rng, [3, 4, 2])
    parameters = [p.clone().requires_grad_(True) for p in flat(layers)]
    theirs = torch.optim.Adam(parameters, lr=0.01)
    ours = Adam(layers, 0.01)
    for k in range(30):
        grads = [torch.tensor(rng.normal(size=p.shape)) * (k % 7) for p in parameters]
        for p, g in zip(parameters, grads, strict=True):
            p.grad = g
        theirs.step()
        layers = ours.step(layers, grads)
    close(flat(layers), [p.detach() for p in parameters])


@pytest.mark.parametrize("by", ["global_norm", "norm", "value"])
def test_updates_are_steps_of_torch_on_the_recorded_gradients(by):
    game = random_game(8, shared=True, frozen=False, hyper={"grad_clip": 0.1, "grad_clip_by": by})
    reference = game.reference()
    lrs = {"actor": game.hyper.actor_lr, "critic": game.hyper.critic_lr}
    parameters = {
        (m, net): [p.clone().requires_grad_(True) for p in flat(game.weights[m][net])]
        for m in game.modules
        for net in ("actor", "critic")
    }
    optimizers = {(m, net): torch.optim.Adam(ps, lr=lrs[net]) for (m, net), ps in parameters.items()}
    targets = {(m, net): flat(game.weights[m][f"target_{net}"]) for m, net in parameters}
    for k in range(5):
        record = reference.update(game.batch(8, k), game.noise(8, k))
        for (m, net), ps in parameters.items():
            grads = record.critic_grads[m] if net == "critic" else record.actor_grads[m]
            for p, g in zip(ps, grads, strict=True):
                p.grad = g.clone()
            if by == "global_norm":
                torch.nn.utils.clip_grad_norm_(ps, 0.1)
            elif by == "norm":
                for p in ps:
                    torch.nn.utils.clip_grad_norm_([p], 0.1)
            else:
                torch.nn.utils.clip_grad_value_(ps, 0.1)
            optimizers[m, net].step()
            now = [p.detach() for p in ps]
            close(flat(record.weights[m][net]), now)
            targets[m, net] = [old.lerp(new, game.hyper.tau) for old, new in zip(targets[m, net], now, strict=True)]
            close(flat(record.weights[m][f"target_{net}"]), targets[m, net])


# Whole updates.


def test_one_row_by_hand():
    """Linear networks, one row; the joint input is [o0, o1, u0, u1 (one-hot of 2)]."""

    def linear(w, *b):
        return [(t(*w), t(*b))]

    weights = {
        "m0": {
            "actor": linear([[1.0]], 0.0),
            "critic": linear([[1.0, -1.0, 2.0, 0.5, 0.0]], 0.5),
            "target_actor": linear([[2.0]], 0.0),
            "target_critic": linear([[0.1, 0.2, 0.3, 0.4, 0.5]], 0.05),
        },
        "m1": {
            "actor": linear([[0.0], [0.0]], 0.5, 0.0),
            "critic": linear([[0.0, 0.0, 1.0, 3.0, 1.0]], 0.0),
            "target_actor": linear([[1.0], [-1.0]], 0.0, 0.0),
            "target_critic": linear([[9.0, 9.0, 9.0, 9.0, 9.0]], 9.0),
        },
    }
    hyper = Hyper(gamma=0.9, tau=0.25, actor_lr=0.1, critic_lr=0.1, policy_reg=0.1)
    reference = ReferenceMADDPG(["a0", "a1"], {"a0": "m0", "a1": "m1"}, {"a0": Box(1), "a1": Discrete(2)}, weights, hyper)
    one = t(1.0)
    batch = {
        "a0": AgentRows(t([0.5]), t([-0.5]), t(1.0), t([0.25]), t(0.0), one, one, one),
        # Out of the game after this row for its own value only: it still acts in a0's next state.
        "a1": AgentRows(t([1.0]), t([1.0, 0.0]), t(-2.0), t([-2.0]), t(1.0), one, one, one),
    }
    noise = {"a0": t([0.0]), "a1": t([0.0, 1.0])}
    record = reference.update(batch, noise)

    tanh_half = 0.46211715726000975
    # Q'_0 = 0.1 * 0.25 - 0.2 * 2 + 0.3 * tanh(2 * 0.25) + 0.5 (out (-2, 2): action 1) + 0.05
    y0 = 1.0 + 0.9 * (0.175 + 0.3 * tanh_half)
    assert y0 == pytest.approx(1.2822716324602026, abs=1e-15)
    close(record.targets, {"m0": {"a0": t(y0)}, "m1": {"a1": t(-2.0)}}, 1e-14)
    close(record.q, {"m0": {"a0": t(-0.5)}, "m1": {"a1": t(2.5)}}, 1e-14)
    e0 = -1.7822716324602026
    assert record.critic_loss == pytest.approx({"m0": e0**2, "m1": 4.5**2}, abs=1e-13)
    close(record.critic_grads["m0"], [t([e0, 2 * e0, -e0, 2 * e0, 0.0]), t(2 * e0)], 1e-14)
    close(record.critic_grads["m1"], [t([4.5, 9.0, -4.5, 9.0, 0.0]), t(9.0)], 1e-14)

    # Adam's first step is lr * sign(gradient), but for eps.
    close(flat(record.weights["m0"]["critic"]), [t([1.1, -0.9, 1.9, 0.6, 0.0]), t(0.6)], 1e-8)
    close(flat(record.weights["m1"]["critic"]), [t([-0.1, -0.1, 1.1, 2.9, 1.0]), t(-0.1)], 1e-8)

    # Actors, by these critics. a0: out = 0.5, d(-Q)/d out = -1.9 (1 - tanh(0.5)^2), d reg/d out = 0.1 * 2 * 0.5.
    g0 = -1.9 * (1 - tanh_half**2) + 0.1
    close(record.actor_grads["m0"], [t([0.5 * g0]), t(g0)], 1e-8)
    # a1: logits (0.5, 0) + noise (0, 1): action 1; soft sample (1 - s, s), s = sigmoid(0.5); dQ/du = (2.9, 1).
    s = 0.6224593312018546
    slope = (2.9 - 1.0) * s * (1 - s)
    close(record.actor_grads["m1"], [t([-slope + 0.05], [slope]), t(-slope + 0.05, slope)], 1e-8)
    loss0 = -(0.55 - 0.9 + 1.9 * tanh_half + 0.6 + 0.6) + 0.1 * 0.25
    loss1 = -(-0.05 - 0.1 - 0.55 + 1.0 - 0.1) + 0.1 * 0.125
    assert record.actor_loss == pytest.approx({"m0": loss0, "m1": loss1}, abs=1e-7)
    close(flat(record.weights["m0"]["actor"]), [t([1.1]), t(0.1)], 1e-8)
    close(flat(record.weights["m1"]["actor"]), [t([0.1], [-0.1]), t(0.6, -0.1)], 1e-7)

    # 0.25 new + 0.75 old target.
    close(flat(record.weights["m0"]["target_critic"]), [t([0.35, -0.075, 0.7, 0.45, 0.375]), t(0.1875)], 1e-8)
    close(flat(record.weights["m0"]["target_actor"]), [t([1.775]), t(0.025)], 1e-8)
    assert same_layers(record.weights["m0"]["critic"], reference.weights["m0"]["critic"])
    close(weights["m0"]["critic"][0][1], t(0.5), 0)  # what it was made from is left as it was


@pytest.mark.parametrize("others", ["replay", "current"])
def test_shared_module_by_hand(others):
    """Two agents of one module: the index in the critic's input, and means over both agents' rows."""
    linear = [(t([0.0, 0.0, 2.0, 3.0, 5.0, 7.0]), t(0.0))]
    actor = [(t([0.0]), t(0.0))]
    weights = {"m": {"actor": actor, "critic": linear, "target_actor": actor, "target_critic": linear}}
    hyper = Hyper(gamma=0.5, policy_reg=0.0, critic_lr=0.0, others_actions=others)
    agents = ["a0", "a1"]
    reference = ReferenceMADDPG(agents, dict.fromkeys(agents, "m"), dict.fromkeys(agents, Box(1)), weights, hyper)

    def rows(reward, alive, acting):
        o = torch.zeros(2, 1, dtype=torch.float64)
        return AgentRows(o, o, reward, o, t(0.0, 1.0), alive, acting, t(1.0, 0.0))

    batch = {
        "a0": rows(t(1.0, 2.0), alive=t(1.0, 1.0), acting=t(1.0, 0.0)),
        "a1": rows(t(3.0, 4.0), alive=t(1.0, 0.0), acting=t(1.0, 0.0)),
    }
    record = reference.update(batch, {a: torch.zeros(2, 1, dtype=torch.float64) for a in agents})
    close(record.q["m"], {"a0": t(5.0, 5.0), "a1": t(7.0, 7.0)}, 0)
    close(record.targets["m"], {"a0": t(3.5, 2.0), "a1": t(6.5, 4.0)}, 0)
    # Errors 1.5, 3 of a0 and 0.5 of a1, which is dead in the second row.
    assert record.critic_loss["m"] == pytest.approx((2.25 + 9 + 0.25) / 3, abs=1e-14)
    close(record.critic_grads["m"], [t([0.0, 0.0, 0.0, 0.0, 3.0, 1 / 3]), t(10 / 3)], 1e-14)
    # All actions are 0, with slope 1; dQ/du0 = 2 counts for a0 and dQ/du1 = 3 for a1, in the one row they act in.
    assert record.actor_loss["m"] == pytest.approx(-(5 + 7) / 2, abs=1e-14)
    close(record.actor_grads["m"], [t([0.0]), t(-(2 + 3) / 2)], 1e-14)


@pytest.mark.parametrize("others", ["replay", "current"])
@pytest.mark.parametrize("seed", range(6))
def test_masked_entries_change_nothing(seed, others):
    game = random_game(
        seed, n_agents=3, shared=seed % 2 == 1, dead=True, waiting=True, frozen=False, hyper={"others_actions": others}
    )
    batch, noise = game.batch(12, seed), game.noise(12, seed)
    garbled, garbled_noise = {}, {}
    for a, rows in batch.items():
        dead, gone, idle = rows.alive == 0, rows.next_acting == 0, rows.acting == 0
        assert dead.any() and gone.any() and idle.any() and not dead.all()
        assert not rows.obs[idle].any() and not rows.action[idle].any()
        garbled[a] = replace(
            rows,
            reward=torch.where(dead, 1e3, rows.reward),
            terminated=torch.where(dead, 1.0 - rows.terminated, rows.terminated),
            next_obs=torch.where(gone[:, None], -17.0, rows.next_obs),
        )
        garbled_noise[a] = torch.where(idle[:, None], noise[a].flip(1), noise[a])
    one, other = game.reference(), game.reference()
    for _ in range(2):
        a, b = one.update(batch, noise), other.update(garbled, garbled_noise)
    assert a.critic_loss == b.critic_loss and a.actor_loss == b.actor_loss
    close([a.critic_grads, a.actor_grads, a.q], [b.critic_grads, b.actor_grads, b.q], 0)
    for m in game.modules:
        assert all(same_layers(a.weights[m][net], b.weights[m][net]) for net in NETS)


def test_unmasked_entries_count():
    game = random_game(1, n_agents=3, shared=False, dead=True, waiting=True, frozen=False)
    batch, noise = game.batch(12, 0), game.noise(12, 0)
    a = game.agents[0]
    before = game.reference().update(batch, noise)
    for name, mask in (("reward", "alive"), ("next_obs", "next_acting"), ("obs", "acting")):
        values = getattr(batch[a], name).clone()
        values[getattr(batch[a], mask).nonzero()[0, 0]] += 0.5
        after = game.reference().update({**batch, a: replace(batch[a], **{name: values})}, noise)
        assert after.critic_loss[game.module_of[a]] != before.critic_loss[game.module_of[a]]


def test_module_with_nobody_alive_has_zero_losses():
    game = random_game(2, n_agents=2, shared=False, dead=False, waiting=False, frozen=False)
    a, b = game.agents
    batch = game.batch(5, 0)
    zero = torch.zeros(5, dtype=torch.float64)
    batch[a] = replace(batch[a], alive=zero, acting=zero)
    record = game.reference().update(batch, game.noise(5, 0))
    m = game.module_of[a]
    assert record.critic_loss[m] == 0 and record.actor_loss[m] == 0
    assert not any(g.any() for g in record.critic_grads[m] + record.actor_grads[m])
    assert same_layers(record.weights[m]["critic"], game.weights[m]["critic"])
    assert record.critic_loss[game.module_of[b]] > 0


def test_current_actions_of_others():
    game = random_game(
        4,
        n_agents=3,
        kinds=["tanh", "discrete", "softmax"],
        shared=False,
        dead=True,
        waiting=True,
        frozen=False,
        hyper={"others_actions": "current"},
    )
    batch, noise = game.batch(10, 0), game.noise(10, 0)
    reference = game.reference()
    for a in game.agents:
        action = reference.others_action(a, batch, noise, "current")
        kind, acting = game.kinds[a], batch[a].acting == 1
        out = mlp(game.weights[game.module_of[a]]["actor"], batch[a].obs, game.activation)
        if isinstance(kind, Discrete):
            out = out + noise[a]
        close(action[acting], greedy_action(kind, out)[acting])
        assert not action.requires_grad and not action[~acting].any()
    # The replayed actions do not matter to the actors' losses then; they do otherwise.
    other = {a: replace(rows, action=torch.zeros_like(rows.action)) for a, rows in batch.items()}
    m = game.modules[0]
    assert reference.actor_loss(m, batch, noise) == reference.actor_loss(m, other, noise)
    replay = game.with_hyper(others_actions="replay").reference()
    assert replay.actor_loss(m, batch, noise) != replay.actor_loss(m, other, noise)


def test_batch_per_module_is_the_update_of_each_on_its_own_batch():
    game = random_game(6, n_agents=4, shared=True, frozen=False)
    batches, noises = game.batches(6, 0), game.noises(6, 0)
    record = game.reference().update(batches, noises)
    for m in game.modules:
        alone = game.reference().update(batches[m], noises[m])
        assert record.critic_loss[m] == alone.critic_loss[m] and record.actor_loss[m] == alone.actor_loss[m]
        assert all(same_layers(record.weights[m][net], alone.weights[m][net]) for net in NETS)
        others = [k for k in game.modules if k != m]
        assert all(record.critic_loss[k] != alone.critic_loss[k] for k in others)


@pytest.mark.parametrize("shared", [False, True])
def test_frozen_modules_keep_their_weights_and_still_count(shared):
    game = random_game(7, n_agents=3, shared=shared, frozen=True)
    reference = game.reference()
    (frozen,) = game.frozen
    batch, noise = game.batch(8, 0), game.noise(8, 0)
    record = reference.update(batch, noise)
    trained = [m for m in game.modules if m != frozen]
    assert list(record.critic_loss) == list(record.actor_loss) == trained
    for net in NETS:
        assert same_layers(record.weights[frozen][net], game.weights[frozen][net])
        assert not any(same_layers(record.weights[m][net], game.weights[m][net]) for m in trained)
    # The trained modules do what they would do if the other were trained, too.
    free = replace(game, frozen=frozenset()).reference().update(batch, noise)
    for m in trained:
        close(record.critic_grads[m], free.critic_grads[m], 0)
        close(record.actor_grads[m], free.actor_grads[m], 0)
    # The frozen module's target actor is in the others' targets.
    moved = game.reference()
    moved.weights[frozen]["target_actor"] = [(-w, -b) for w, b in moved.weights[frozen]["target_actor"]]
    moved_record = moved.update(batch, noise)
    assert any(not torch.equal(y, moved_record.targets[m][a]) for m in trained for a, y in record.targets[m].items())


def test_random_games():
    seen = set()
    for seed in range(60):
        game = random_game(seed)
        reference = game.reference()
        sizes = [len(reference.agents_of(m)) for m in game.modules]
        assert 2 <= len(game.agents) <= 4 and len(reference.trained) >= 1
        seen |= {str(getattr(kind, "head", type(kind).__name__)) for kind in game.kinds.values()}
        seen |= {f"shared {max(sizes) > 1}", f"frozen {bool(game.frozen)}", f"dead {game.dead}"}
        batch = game.batch(6, seed)
        for rows in batch.values():
            for mask in (rows.terminated, rows.alive, rows.acting, rows.next_acting):
                assert ((mask == 0) | (mask == 1)).all()
            assert (rows.acting <= rows.alive).all() and (rows.next_acting <= rows.alive).all()
            assert (rows.next_acting * rows.terminated == 0).all()
            assert game.dead or rows.alive.all()
        record = reference.update(batch, game.noise(6, seed))
        assert np.isfinite([*record.critic_loss.values(), *record.actor_loss.values()]).all()
        again = random_game(seed)
        assert all(same_layers(again.weights[m]["critic"], game.weights[m]["critic"]) for m in game.modules)
    assert len(seen) == 4 + 6
    for shared in (False, True):
        for frozen in (False, True):
            for seed in range(5):
                game = random_game(seed, shared=shared, frozen=frozen, dead=True)
                assert (len(game.modules) < len(game.agents)) == shared and len(game.frozen) == frozen and game.dead
                assert len(game.frozen) < len(game.modules)


# The Markov games.


def test_chain_arrays():
    game = chain_game()
    np.testing.assert_allclose(game.P.sum(axis=-1), 1.0, atol=1e-15)
    assert game.n_states == 4 and game.n_actions == (2, 3) and game.D.sum() == 2
    assert not np.allclose(game.R[0], game.R[1])
    transitions = all_transitions(game)
    P = np.zeros_like(game.P)
    for tr in transitions:
        P[(tr.state, *tr.actions, tr.next_state)] = tr.probability
        assert tr.rewards == tuple(game.R[(slice(None), tr.state, *tr.actions)])
        assert tr.terminated == game.D[(tr.state, *tr.actions)]
    assert np.array_equal(P, game.P)


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_exact_q_is_the_limit_of_value_iteration(slip):
    game, gamma = chain_game(slip), 0.9
    rng = np.random.default_rng(0)
    for _ in range(5):
        pi = [rng.integers(2, size=4), rng.integers(3, size=4)]
        q = np.zeros((2, 4, 2, 3))
        for _ in range(400):
            v = q[:, np.arange(4), pi[0], pi[1]]
            q = np.stack([game.R[i] + gamma * (1 - game.D) * np.einsum("sabt,t->sab", game.P, v[i]) for i in range(2)])
        exact = exact_q(game, pi, gamma)
        np.testing.assert_allclose(exact, q, rtol=0, atol=1e-12)
        assert exact[:, 3, 1, 0] == pytest.approx([2.0, -1.0]) and exact[:, 0, 0, 2] == pytest.approx([-0.5, 1.5])


def test_exact_q_by_hand():
    # Always right and let it: 0 -> 1 -> 2 -> 3 -> end; agent 0 gets 0.3 s - 0.2, then 2.
    q = exact_q(chain_game(0.0), [[1] * 4, [0] * 4], 0.5)
    v3, v2 = 2.0, 0.4 + 0.5 * 2.0
    v1 = 0.1 + 0.5 * v2
    v0 = -0.2 + 0.5 * v1
    np.testing.assert_allclose(q[0, :, 1, 0], [v0, v1, v2, v3], atol=1e-14)
    assert q[0, 1, 0, 1] == pytest.approx(0.3 + 0.5 + 0.5 * v2, abs=1e-14)  # left, turned round: to state 2


def test_chain_environment_does_what_the_arrays_say():
    env = TwoAgentChain({"max_steps": 7})
    game = env.game
    rng = np.random.default_rng(0)
    counts = np.zeros_like(game.P)
    episode, starts, truncations = 0, np.zeros(4), 0
    obs, _ = env.reset(seed=11)
    for _ in range(6000):
        if not env.agents:
            obs, _ = env.reset()
            episode = 0
        s = int(obs["agent_0"].argmax())
        starts[s] += episode == 0
        for agent in AGENTS:
            assert env.get_observation_space(agent).contains(obs[agent])
            assert np.array_equal(obs[agent], np.eye(4)[s])
        a = tuple(int(rng.integers(n)) for n in game.n_actions)
        assert all(env.get_action_space(agent).n == n for agent, n in zip(AGENTS, game.n_actions, strict=True))
        obs, rewards, terminateds, truncateds, _ = env.step(dict(zip(AGENTS, a, strict=True)))
        episode += 1
        counts[(s, *a, int(obs["agent_1"].argmax()))] += 1
        assert [rewards[agent] for agent in AGENTS] == list(game.R[(slice(None), s, *a)])
        over = bool(game.D[(s, *a)])
        assert set(terminateds) == {*AGENTS, "__all__"} and set(terminateds.values()) == {over}
        cut = episode == 7 and not over
        assert set(truncateds) == {*AGENTS, "__all__"} and set(truncateds.values()) == {cut}
        truncations += cut
        assert bool(env.agents) == (not over and not cut)
    assert not counts[game.P == 0].any() and counts[game.P > 0].all()
    np.testing.assert_allclose(counts / counts.sum(axis=-1, keepdims=True), game.P, atol=0.12)
    assert (starts > 100).all() and truncations > 100


def test_chain_environment_is_seeded():
    def play(seed):
        env = TwoAgentChain()
        states = [env.reset(seed=seed)[0]["agent_0"].argmax()]
        while env.agents:
            states.append(env.step({"agent_0": 1, "agent_1": 1})[0]["agent_0"].argmax())
        return states

    assert play(3) == play(3) and len({tuple(play(seed)) for seed in range(10)}) > 1
    env = TwoAgentChain({"start": 2})
    assert all(env.reset()[0]["agent_0"].argmax() == 2 for _ in range(5))


def test_climbing_game():
    env = ClimbingGame({})
    for a0 in range(3):
        for a1 in range(3):
            obs, _ = env.reset(seed=0)
            assert all(np.array_equal(obs[agent], [1.0]) for agent in AGENTS)
            assert all(env.get_observation_space(agent).contains(obs[agent]) for agent in AGENTS)
            _, rewards, terminateds, truncateds, _ = env.step({"agent_0": a0, "agent_1": a1})
            assert set(rewards.values()) == {CLIMBING_PAYOFF[a0, a1]}
            assert all(terminateds.values()) and not any(truncateds.values()) and "__all__" in terminateds
    assert CLIMBING_PAYOFF.max() == 11 and CLIMBING_PAYOFF[1].tolist() == [-30, 7, 6]
