"""The oracle's other members against integrals, scipy, finite differences and numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from finite_differences import central_differences
from reference.family import ReferenceFamily
from reference.family_games import FamilyGame, family_weights, random_family_game
from reference.inferred_policies import (
    censored_normal_log_density,
    concrete_log_density,
    divergence,
    entropy,
    log_likelihood,
    standard_deviation,
)
from reference.maddpg import (
    TARGET,
    AgentRows,
    Box,
    Discrete,
    Hyper,
    MultiDiscrete,
    ReferenceMADDPG,
    flat,
    greedy_action,
    mlp,
    random_game,
    straight_through,
)
from scipy import integrate, stats
from scipy.special import expit, logit

PLAIN = {"twin_q": False, "policy_delay": 1, "target_policy_noise": 0.0, "infer_other_policies": False}


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(a, b, tol=1e-12):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol, check_dtype=True)


def same_layers(a, b):
    return all(torch.equal(p, q) for p, q in zip(flat(a), flat(b), strict=True))


# What an approximation says.


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 0.3), (0.7, 0.05), (-0.9, 1.0), (0.999, 0.4)])
def test_censored_normal_is_a_distribution(mu, sigma):
    """Its two masses and the integral of its density make 1; each is scipy's."""

    def density(x):
        return float(censored_normal_log_density(t(mu), t(sigma), t(x)).exp())

    inside, _ = integrate.quad(density, -1 + 1e-12, 1 - 1e-12, points=[mu], epsabs=1e-12)
    assert inside + density(-1.0) + density(1.0) == pytest.approx(1.0, abs=1e-9)
    normal = stats.norm(mu, sigma)
    assert density(-1.0) == pytest.approx(normal.cdf(-1.0), rel=1e-9) and density(1.0) == pytest.approx(
        normal.sf(1.0), rel=1e-9
    )
    for x in (-0.99, 0.0, 0.5):
        assert density(x) == pytest.approx(normal.pdf(x), rel=1e-9)


def test_censored_normal_far_from_its_mean():
    """40 standard deviations away there is still a number, and a way back: the tail's log has a slope of about x / sigma."""
    mu = t(0.999).requires_grad_(True)
    value = censored_normal_log_density(mu, t(0.05), t(-1.0)).sum()
    assert float(value.detach()) == pytest.approx(stats.norm.logcdf(-1.999 / 0.05), rel=1e-12)
    (slope,) = torch.autograd.grad(value, mu)
    assert float(slope) == pytest.approx(-1.999 / 0.05 / 0.05, rel=1e-3)


def test_standard_deviations_stay_in_their_range():
    close(standard_deviation(t(-1e3, 0.0, 1e3)), t(0.05, 0.525, 1.0))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_concrete_density_integrates_to_one(temperature):
    """On the 2-simplex."""
    log_alpha = t([0.3, -0.5, 0.9])

    def density(y, x):
        share = t([x, y, 1 - x - y])
        return float(concrete_log_density(log_alpha, temperature, share).exp())

    # With temperatures above 1 nothing is at the edges, where it grows without bound below it.
    if temperature < 1:
        u = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
        # x = u^5, so that the grid is fine at the edges; likewise for the share of the rest, from both of its ends.
        a, b = torch.meshgrid(u, u, indexing="ij")
        x, dx = a**4, 4 * a**3
        x, dx = x / (x + (1 - a) ** 4), dx * (1 - a) ** 3 / (x + (1 - a) ** 4) ** 2
        r, dr = b**4 / (b**4 + (1 - b) ** 4), 4 * b**3 * (1 - b) ** 3 / (b**4 + (1 - b) ** 4) ** 2
        share = torch.stack([x, (1 - x) * r, (1 - x) * (1 - r)], -1).flatten(0, 1)
        values = concrete_log_density(log_alpha.expand(len(share), 3), temperature, share).exp()
        total = float((values.view_as(a) * dx * dr * (1 - x)).sum() / 800**2)
    else:
        total, _ = integrate.dblquad(density, 1e-9, 1 - 1e-9, 1e-9, lambda x: 1 - x - 1e-9, epsabs=1e-5)
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_density_of_a_softmax_head_is_that_of_what_runners_do(temperature):
    """softmax(out + T g) of two: out_0 - out_1 + T (g_0 - g_1), a logistic variable, through the sigmoid."""
    out, hyper, kind = t([0.8, -0.4]), Hyper(exploration_temperature=temperature), Box(2, "softmax")

    def density(x):  # of the first share; d code = 2 d share, and both shares are told
        return float(log_likelihood(kind, out, None, t([2 * x - 1, 1 - 2 * x]), hyper).exp())

    for low, high in ((0.02, 0.3), (0.3, 0.9), (0.9, 0.995)):
        probability, _ = integrate.quad(density, low, high, epsabs=1e-11, limit=200)
        cdf = [expit((logit(x) - 1.2) / temperature) for x in (low, high)]
        assert probability == pytest.approx(cdf[1] - cdf[0], abs=1e-8)


def test_limits_of_a_softmax_heads_density():
    """A share below 2^-24 counts as that; a temperature below 0.05 as that."""
    kind, out = Box(3, "softmax"), t([0.1, 0.2, -0.3])
    cold, limit = (Hyper(exploration_temperature=temperature) for temperature in (0.0, 0.05))
    code = t([0.2, -0.4, -0.8])
    close(log_likelihood(kind, out, None, code, cold), log_likelihood(kind, out, None, code, limit), 0)
    close(entropy(kind, out, None, cold), entropy(kind, out, None, limit), 0)
    corner = log_likelihood(kind, out, None, t([1.0, -1.0, -1.0]), limit)
    close(corner, log_likelihood(kind, out, None, t([1.0, 2**-23 - 1.0, 2**-23 - 1.0]), limit), 0)
    assert torch.isfinite(corner).all()


@pytest.mark.parametrize("kind", [Discrete(3), MultiDiscrete((2, 3))])
def test_categorical_likelihoods_add_up_to_one(kind):
    out, hyper = t([0.5, -1.0, 2.0, 0.1, 0.0][: kind.code_dim]), Hyper(exploration_temperature=0.3)
    total = logs = 0.0
    for choice in product(*map(range, kind.parts)):
        code = torch.cat([torch.eye(n, dtype=torch.float64)[c] for n, c in zip(kind.parts, choice, strict=True)])[None]
        log_p = float(log_likelihood(kind, out, None, code, hyper))
        by_hand = sum(
            float(part[0, c] - part.exp().sum().log()) for part, c in zip(out.split(kind.parts, 1), choice, strict=True)
        )
        assert log_p == pytest.approx(by_hand, abs=1e-14)
        total, logs = total + np.exp(log_p), logs + np.exp(log_p) * log_p
    assert total == pytest.approx(1.0, abs=1e-14)
    assert float(entropy(kind, out, None, hyper)) == pytest.approx(-logs, abs=1e-14)


def test_entropies_of_boxes():
    rho = t([0.0, -3.0])
    sigmas = 0.05 + 0.95 * expit(np.array([0.0, -3.0]))
    expected = sum(float(stats.norm(0, s).entropy()) for s in sigmas)
    assert float(entropy(Box(2), t([0.3, 5.0]), rho, Hyper())) == pytest.approx(expected, abs=1e-12)
    p = np.exp([1.0, -2.0, 0.0])
    found = entropy(Box(3, "softmax"), t([0.5, -1.0, 0.0]), None, Hyper(exploration_temperature=0.5))
    assert float(found) == pytest.approx(stats.entropy(p / p.sum()), abs=1e-12)


def test_divergence_is_from_the_true_policy_at_its_temperature():
    kind, hyper = MultiDiscrete((2, 3)), Hyper(exploration_temperature=0.5)
    mine, true = t([0.5, -1.0, 2.0, 0.1, 0.0]), t([0.1, 0.2, 0.3, 0.0, -0.4])
    p, q = (np.exp(x.numpy()[0]) for x in (mine, true / 0.5))
    expected = sum(stats.entropy(p[s], q[s]) for s in (slice(2), slice(2, 5)))  # scipy divides by the sums
    assert float(divergence(kind, mine, true, hyper)) == pytest.approx(expected, abs=1e-12)
    close(divergence(kind, 2 * true, true, hyper), t(0.0))
    assert torch.isfinite(divergence(kind, mine, true, Hyper(exploration_temperature=0.0))).all()


# Approximations.


def inferring_game(seed=3, kinds=("tanh", "discrete", "softmax"), **settings) -> FamilyGame:
    settings = {"n_agents": 4, "shared": True, "dead": True, "waiting": True, "frozen": False, "per_module": {}} | settings
    hyper = {**PLAIN, "infer_other_policies": True, "inferred_policy_entropy": 0.1, "inferred_target": "greedy"}
    hyper |= {"critic_view": "all", "exploration_temperature": 0.7, **settings.pop("hyper", {})}
    return random_family_game(seed, kinds=kinds, hyper=hyper, **settings)


def update(game, reference, k=0, **changes):
    given = {"batches": game.batch(8, k), "noise": game.noise(8, k), "newest": game.newest(10, k)}
    return reference.update(**{**given, "smoothing": game.smoothing(8, k), **changes})


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_approximations_are_those_of_finite_differences(seed):
    kinds = [("tanh", "discrete", "softmax"), ("multi_discrete", "tanh", "softmax")][seed % 2]
    game = inferring_game(seed, kinds, activation="tanh", hidden=[3])
    reference = game.reference()
    newest = game.newest(10, seed)
    record = update(game, game.reference(), seed, newest=newest)
    seen = 0
    for m in game.modules:
        nets = {
            net: game.weights[m][net] for other in reference.inferred_modules(m) for net in reference.inferred_nets(m, other)
        }
        assert record.losses[m, "inferred"] == pytest.approx(float(reference.inferred_loss(m, newest, nets)), abs=1e-12)
        for net in nets:
            by_hand = central_differences(
                lambda w, m=m, net=net, nets=nets: reference.inferred_loss(m, newest, {**nets, net: w}), nets[net], h=1e-6
            )
            for ours, other in zip(record.grads[m, net], by_hand, strict=True):
                close(ours, other, 1e-5 * max(1.0, float(other.abs().max())) if other.numel() else 0)
            seen += 1
    assert seen >= len(game.modules) * (len(game.modules) - 1)


def test_loss_of_an_approximation_by_hand():
    """A module infers two agents of another one; linear networks of [observation, index]."""
    agents, module_of = ["a", "b", "c"], {"a": "m0", "b": "m1", "c": "m1"}
    kinds = {"a": Box(1), "b": Discrete(2), "c": Discrete(2)}
    hyper = Hyper(infer_other_policies=True, inferred_policy_entropy=0.5, inferred_lr=0.1)
    weights = {m: {"actor": [], "critic": []} for m in ("m0", "m1")}
    # Logits: b's are (o, 0), c's (o, 1).
    weights["m0"]["inferred_1"] = [(t([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]), t(0.0, 0.0))]
    reference = ReferenceFamily(agents, module_of, kinds, weights, hyper)
    column, one = t([2.0], [3.0]), t(1.0, 1.0)
    rows = AgentRows(column, t([1.0, 0.0], [0.0, 1.0]), one, column, one, one, one, one)
    newest = {"a": None, "b": rows, "c": replace(rows, acting=t(1.0, 0.0))}
    s = {x: expit(x) for x in (1.0, 2.0, 3.0)}
    likelihood = np.log(s[2.0]) + np.log(1 - s[3.0]) + np.log(s[1.0])  # b did 0, then 1; c did 0, and then nothing
    entropies = sum(-p * np.log(p) - (1 - p) * np.log(1 - p) for p in s.values())
    loss = reference.inferred_loss("m0", newest, weights["m0"])
    assert float(loss) == pytest.approx(-(likelihood + 0.5 * entropies) / 3, abs=1e-14)
    nobody = {j: replace(rows, acting=t(0.0, 0.0)) for j in agents}
    assert float(reference.inferred_loss("m0", nobody, weights["m0"])) == 0.0


def test_entropy_is_wanted():
    """With a large weight it is all that counts, and the loss falls where standard deviations rise."""
    game = inferring_game(kinds=[Box(2)], hyper={"inferred_policy_entropy": 1e6})
    record = update(game, game.reference())
    deviations = [grads[1] for (_, net), grads in record.grads.items() if net.endswith("_std")]
    assert deviations and all((slope < 0).all() for slope in deviations)


def test_approximations_learn_from_the_newest_rows_and_whoever_acted():
    game = inferring_game()
    batch, newest = game.batch(8, 0), game.newest(10, 0)
    record = update(game, game.reference(), newest=newest)
    inferred = [key for key in record.grads if key[1].startswith("inferred")]
    other_rows = update(game, game.reference(), batches=game.batch(8, 9), newest=newest)
    garbled = {
        a: replace(
            rows, **{name: torch.where(rows.acting[:, None] > 0, getattr(rows, name), -3.0) for name in ("obs", "action")}
        )
        for a, rows in newest.items()
    }
    assert all(not rows.acting.all() for rows in newest.values())
    others_dead = update(game, game.reference(), newest=garbled)
    themselves = update(game, game.reference(), batches=batch, newest=None)
    for key in inferred:
        close(other_rows.grads[key], record.grads[key], 0)
        close(others_dead.grads[key], record.grads[key], 0)
        assert not torch.equal(themselves.grads[key][-1], record.grads[key][-1])
    assert record.losses != other_rows.losses and record.reports == other_rows.reports
    for m, values in others_dead.reports.items():
        assert values == pytest.approx(record.reports[m], abs=1e-14)


@pytest.mark.parametrize("current", [False, True])
def test_who_enters_targets_and_losses(current):
    """Targets: the own target actor and target approximations, before they move. Others' actors never do."""
    hyper = {"others_actions": "current" if current else "replay", "grad_clip": None, "critic_loss": "mse"}
    game = inferring_game(hyper=hyper)
    me = next(m for m in game.modules if len(game.reference().agents_of(m)) == 1)
    before = update(game, game.reference())

    def changed(module, net):
        reference = game.reference()
        reference.weights[module][net] = [(-w, -b) for w, b in reference.weights[module][net]]
        record = update(game, reference)
        key = (me, "actor")
        return (
            any(not torch.equal(y, record.targets[me][a]) for a, y in before.targets[me].items()),
            before.losses[key] != record.losses[key] or not torch.equal(before.grads[key][0], record.grads[key][0]),
        )

    for m in game.modules:
        net = game.reference().inferred_net(m)
        if m != me:
            assert changed(me, TARGET + net) == (True, True)  # by way of the critic
            assert changed(me, net) == (False, current)
            for others in ("actor", "target_actor", "critic", "target_critic"):
                assert changed(m, others) == (False, False)
    assert changed(me, "target_actor") == (True, True)
    assert changed(me, "actor") == (False, True)


@pytest.mark.parametrize("target", ["greedy", "probabilities"])
def test_targets_by_approximations(target):
    """By hand for each kind; agents of the own module, also of a shared one, do what their target actor says."""
    game = inferring_game(12, ("discrete", "tanh", "softmax"), hyper={"inferred_target": target})
    reference, batch = game.reference(), game.batch(6, 0)
    (shared,) = [m for m in game.modules if len(reference.agents_of(m)) > 1]
    for owner, i in ((game.module_of[a], a) for a in game.agents):
        for j in game.agents:
            kind, obs, k = game.kinds[j], batch[j].next_obs, game.modules.index(game.module_of[j])
            if game.module_of[j] == owner:
                expected = greedy_action(kind, mlp(game.weights[owner]["target_actor"], obs, game.activation))
            else:
                sharers = reference.agents_of(game.module_of[j])
                if len(sharers) > 1:
                    index = torch.eye(len(sharers), dtype=torch.float64)[sharers.index(j)]
                    obs = torch.cat([obs, index.expand(6, -1)], 1)
                out = mlp(game.weights[owner][f"target_inferred_{k}"], obs, game.activation)
                soft = target == "probabilities" and isinstance(kind, Discrete)
                expected = torch.softmax(out, 1) if soft else greedy_action(kind, out)
            close(reference.target_action(j, batch[j].next_obs, i, torch.zeros_like(batch[j].action)), expected, 0)
    assert {type(kind) for kind in game.kinds.values()} == {Box, Discrete} and shared


def test_current_actions_of_approximations():
    game = inferring_game(6, ("multi_discrete", "tanh", "discrete"), hyper={"others_actions": "current"})
    reference, batch, noise = game.reference(), game.batch(6, 0), game.noise(6, 0)
    for i, j in product(game.agents, game.agents):
        owner, kind, rows = game.module_of[i], game.kinds[j], batch[j]
        if game.module_of[j] == owner:
            out = mlp(game.weights[owner]["actor"], rows.obs, game.activation)
        else:
            out = reference.inferred_output(j, rows.obs, game.weights[owner][reference.inferred_net(game.module_of[j])])
        expected = greedy_action(kind, out) if isinstance(kind, Box) else straight_through(kind, out, noise[j], 1.0).round()
        close(reference.others_action(j, batch, noise, "current", i), expected * rows.acting[:, None])


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "softmax", "tanh"])
def test_approximations_come_to_what_others_do(kind):
    """From explored actions of a true policy, as runners sample them."""
    hidden = {"n_agents": 2, "shared": False, "dead": False, "waiting": False, "activation": "tanh", "hidden": [4]}
    hyper = {"inferred_policy_entropy": 0.0, "inferred_lr": 0.03, "grad_clip": None, "exploration_temperature": 0.6}
    game = inferring_game(11, (kind,), **hidden, hyper=hyper)
    game.weights = family_weights(game, np.random.default_rng(0))
    reference, rng = game.reference(), np.random.default_rng(1)
    me, other = game.agents
    action_kind, net = game.kinds[other], reference.inferred_net(game.module_of[other])
    for m in game.modules:
        reference.adam[m, "actor"].lr = 0.0

    def newest(k):
        batch = game.batch(256, k)
        out = mlp(game.weights[game.module_of[other]]["actor"], batch[other].obs, game.activation)
        g = torch.tensor(rng.gumbel(size=out.shape))
        if kind == "tanh":
            action = (torch.tanh(out) + 0.3 * torch.tensor(rng.normal(size=out.shape))).clamp(-1, 1)
        else:
            action = greedy_action(action_kind, out + 0.6 * g)
        return {**batch, other: replace(batch[other], action=action)}

    names = [f"inferred_{other}_{name}" for name in (("rmse",) if kind in ("softmax", "tanh") else ("kl",))]
    m, seen = game.module_of[me], []
    for k in range(120):
        rows = newest(k)
        reference.steps(
            {m: reference.inferred_nets(m, game.module_of[other])},
            lambda m, nets, rows=rows: reference.inferred_loss(m, rows, nets),
        )
        seen.append(reference.inferred_reports(m, rows)[names[0]])
    assert seen[-1] < min(0.3 * seen[0], 0.05)
    if kind == "tanh":
        sigma = standard_deviation(reference.weights[m][f"{net}_std"][0][1])
        close(sigma, torch.full_like(sigma, 0.3), 0.05)


# MATD3.


def test_without_its_settings_it_is_maddpg():
    for seed in range(8):
        game = random_game(seed)
        args = (game.agents, game.module_of, game.kinds, game.weights, game.hyper, game.activation, game.frozen)
        one, other = ReferenceMADDPG(*args), ReferenceFamily(*args)
        batch, noise = game.batch(8, seed), game.noise(8, seed)
        for _ in range(2):
            a, b = one.update(batch, noise), other.update(batch, noise)
        assert all(same_layers(a.weights[m][net], b.weights[m][net]) for m in game.modules for net in a.weights[m])
        assert b.losses == {(m, "critic"): v for m, v in a.critic_loss.items()} | {
            (m, "actor"): v for m, v in a.actor_loss.items()
        }
        for m in one.trained:
            close(a.targets[m], b.targets[m], 0)
            close(a.critic_grads[m], b.grads[m, "critic"], 0)


def test_twins_by_hand():
    """One agent, Q = w a: both learn the smaller target, and the actor climbs the first."""

    def value(w):
        return [(t([0.0, w]), t(0.0))]

    actor = [(t([0.0]), t(0.0))]
    weights = {"actor": actor, "target_actor": [(t([0.0]), t(0.5))]}
    for first, second, smaller in ((2.0, 3.0, 2.0), (4.0, 1.0, 1.0)):
        nets = {
            "critic": value(5.0),
            "twin_critic": value(7.0),
            "target_critic": value(first),
            "target_twin_critic": value(second),
        }
        hyper = Hyper(gamma=0.5, twin_q=True, policy_reg=0.0, critic_lr=0.0, actor_lr=0.0, tau=0.25)
        reference = ReferenceFamily(["a"], {"a": "m"}, {"a": Box(1)}, {"m": {**weights, **nets}}, hyper)
        one = t(1.0)
        rows = AgentRows(t([0.0]), t([1.0]), t(3.0), t([0.0]), t(0.0), one, one, one)
        record = reference.update({"a": rows}, {"a": t([0.0])})
        y = 3.0 + 0.5 * smaller * np.tanh(0.5)
        assert float(record.targets["m"]["a"]) == pytest.approx(y, abs=1e-14)
        assert record.losses["m", "critic"] == pytest.approx((5 - y) ** 2 + (7 - y) ** 2, abs=1e-12)
        close(record.grads["m", "critic"][1], t(2 * (5 - y)))
        close(record.grads["m", "twin_critic"][1], t(2 * (7 - y)))
        close(record.grads["m", "actor"][1], t(-5.0))
        close(record.weights["m"]["target_twin_critic"][0][0], t([0.0, 0.25 * 7 + 0.75 * second]))


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_delay_counts_updates(delay):
    game = inferring_game(hyper={"policy_delay": delay, "twin_q": True})
    reference = game.reference()
    for k in range(1, 7):
        before = {m: dict(nets) for m, nets in reference.weights.items()}
        record = update(game, reference, k)
        due = k % delay == 0
        for m in game.modules:
            assert ((m, "actor") in record.losses) == due
            for net, layers in record.weights[m].items():
                moves = due or not (net == "actor" or net.startswith(TARGET))
                assert same_layers(layers, before[m][net]) != moves, (k, m, net)
    # An actor that waits has not seen gradients in between.
    assert {adam.t for (_, net), adam in reference.adam.items() if net == "actor"} == {6 // delay}


def test_smoothing_by_hand():
    hyper = Hyper(target_policy_noise=0.2, target_noise_clip=0.3)
    kinds = {"a": Box(3), "b": Discrete(2), "c": Box(2, "softmax")}
    outputs = {"a": t(0.0, 0.0, 3.0), "b": t(0.0, 0.5), "c": t(0.0, 0.0)}
    weights = {m: {"target_actor": [(torch.zeros(len(b), 1, dtype=torch.float64), b)]} for m, b in outputs.items()}
    reference = ReferenceFamily(list("abc"), dict(zip("abc", "abc", strict=True)), kinds, weights, hyper)

    def action(agent, *z):
        return reference.target_action(agent, t([1.0]), "a", t(list(z)))

    # 0.2 z within -0.3 and 0.3, on the code, which stays in [-1, 1].
    close(action("a", 1.0, -5.0, 2.0), t([0.2, -0.3, 1.0]))
    # On logits: 0.5 of lead go with 0.3 on both sides only.
    close(action("b", 1.4, 0.0), t([0.0, 1.0]))
    close(action("b", 9.0, 0.0), t([0.0, 1.0]))
    close(action("b", 1.3, -1.3), t([1.0, 0.0]))
    shares = np.exp([0.2, -0.3])
    close(action("c", 1.0, -9.0), torch.tensor(2 * shares / shares.sum() - 1)[None])


def test_whose_smoothing():
    """The numbers are those of the module whose network gives the action; noise is in all targets alike."""
    game = inferring_game(7, kinds=[Box(2)], hyper={"twin_q": True}, shared=False, n_agents=2)
    first, second = game.modules
    game.per_module = {first: {"target_policy_noise": 0.1}, second: {"target_policy_noise": 0.4, "infer_other_policies": False}}
    game.weights = family_weights(game, np.random.default_rng(0))
    reference, obs = game.reference(), {a: game.batch(4, 0)[a].next_obs for a in game.agents}
    z = torch.full((4, 2), 0.3, dtype=torch.float64)
    for i, j in product(game.agents, game.agents):
        smooth, plain = (reference.target_action(j, obs[j], i, noise) for noise in (z, 0 * z))
        # The second module infers nobody: it takes the first one's target actor, with its noise.
        by = game.module_of[i] if game.module_of[i] == first else game.module_of[j]
        close(smooth, (plain + 0.3 * (0.1 if by == first else 0.4)).clamp(-1, 1))


# Random games.


def test_random_games_have_all_members():
    seen = set()
    for seed in range(104):
        game = random_family_game(seed)
        reference = game.reference()
        for k in range(1 + (seed < 20)):
            record = update(game, reference, k)
            assert np.isfinite([*record.losses.values(), *(v for r in record.reports.values() for v in r.values())]).all()
        for m, hyper in game.hypers.items():
            seen |= {("twin", hyper.twin_q), ("delay", hyper.policy_delay), ("noise", hyper.target_policy_noise)}
            seen |= {("view", hyper.critic_view, hyper.infer_other_policies), ("target", hyper.inferred_target)}
            for other in reference.inferred_modules(m):
                sharers = reference.agents_of(other)
                kind = game.kinds[sharers[0]]
                seen.add((getattr(kind, "head", type(kind).__name__), len(sharers) > 1))
        ends = [float((rows.action.abs() == 1.0).double().mean()) for rows in game.newest(20, seed).values()]
        assert max(ends) > 0.0
    assert len(seen) == 2 + 3 + 3 + 4 + 2 + 8
