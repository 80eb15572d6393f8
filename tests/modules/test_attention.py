"""The attention critic: its values by the oracle's loops, who is looked at, and the ways in which it is asked."""

from __future__ import annotations

import math

import pytest
import torch
from attention_learners import named
from gymnasium.spaces import Box, Discrete
from reference.attention import attention_q

from rllib_maddpg.modules.attention import AttentionCritic
from rllib_maddpg.modules.attention_critics import AttentionCritics
from rllib_maddpg.modules.common_weights import CommonWeights
from rllib_maddpg.modules.critic_inputs import PresentInputs
from rllib_maddpg.modules.views import View
from rllib_maddpg.rows.layout import JointLayout
from rllib_maddpg.rows.schema import RowSchema

WIDTHS, CODE, ROWS, HEADS = (3, 4, 3, 3), 2, 7, 2
AGENTS = ("a", "b", "c", "d")


def layout_of(agents=AGENTS, widths=WIDTHS) -> JointLayout:
    boxes = {agent: Box(-1, 1, (width,)) for agent, width in zip(agents, widths, strict=True)}
    return JointLayout(boxes, {agent: Discrete(CODE) for agent in agents}, lambda agent: agent)


def network_of(layout: JointLayout, columns: int = 0, **more) -> AttentionCritic:
    torch.manual_seed(len(layout))
    return AttentionCritic(layout, columns, (8, 5), heads=HEADS, **more).double()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(layout: JointLayout, columns: int = 0, present: torch.Tensor | None = None) -> PresentInputs:
    obs, actions = numbers(ROWS, layout.obs_dim), numbers(ROWS, layout.action_dim, seed=1)
    if present is None:
        present = (numbers(ROWS, len(layout), seed=2) > -0.4).double()
        present[0] = 0.0  # nobody is there
        present[1] = torch.eye(len(layout))[0]  # one agent alone
    return PresentInputs(obs, numbers(ROWS, columns, seed=3) if columns else None, present, actions)


def critics_of(layout: JointLayout, modules, columns: int = 0, **more) -> AttentionCritics:
    return AttentionCritics(layout, modules, CommonWeights([network_of(layout, columns, **more)]))


@pytest.mark.parametrize("columns", [0, 3])
@pytest.mark.parametrize("modules", [AGENTS, ("b", "d")])
def test_values_are_those_of_the_loops(columns, modules):
    """Of all agents and of some; also in rows where nobody is in the game. To rounding of float64."""
    layout = layout_of()
    critics, inputs = critics_of(layout, modules, columns), inputs_of(layout, columns)
    q = critics.q_values(inputs)
    assert q.shape == (len(modules), 1, ROWS)
    seen = [torch.cat(part, 1) for part in zip(inputs.obs.split(WIDTHS, 1), inputs.actions.split(CODE, 1), strict=True)]
    kinds, present = (0, 1, 0, 0), inputs.present.unbind(1)
    for k, module in enumerate(modules):
        judged = layout.index(module)
        expected = attention_q(named(critics.network), kinds, seen, present, judged, HEADS, columns=inputs.columns)
        torch.testing.assert_close(q[k, 0], expected, rtol=0, atol=1e-13)


def test_a_single_number_by_hand():
    """Two agents with one number each, all weights 1: e_0 = 1, e_1 = 3, so Q_0 = 1 + 3 and Q_1 = 3 + 1; alone Q_0 = 1."""
    layout = JointLayout({a: Box(-9, 9, (1,)) for a in "ab"}, {a: Box(-1, 1, (1,)) for a in "ab"}, lambda agent: agent)
    network = AttentionCritic(layout, 0, (1,), heads=1)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    torch.nn.init.zeros_(network.agent_bias)
    torch.nn.init.zeros_(network.head.linears[0].bias)
    critics = AttentionCritics(layout, ("a", "b"), CommonWeights([network]))
    obs, actions = torch.tensor([[0.5, 2.5]] * 2), torch.tensor([[0.5, 0.5]] * 2)
    q = critics.q_values(PresentInputs(obs, None, torch.tensor([[1.0, 1.0], [1.0, 0.0]]), actions))
    assert q[:, 0].tolist() == [[4.0, 1.0], [4.0, 4.0]]


def test_shares_are_a_softmax_over_others():
    """Three agents, embeddings 1, 2 and 3, query and keys 1: Q_0 = 1 + (2 e^2 + 3 e^3) / (e^2 + e^3)."""
    layout = JointLayout({a: Box(-9, 9, (1,)) for a in "abc"}, {a: Box(-1, 1, (1,)) for a in "abc"}, lambda agent: agent)
    network = AttentionCritic(layout, 0, (1,), heads=1).double()
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    torch.nn.init.zeros_(network.agent_bias)
    torch.nn.init.zeros_(network.head.linears[0].bias)
    critics = AttentionCritics(layout, ("a",), CommonWeights([network]))
    obs = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    q = critics.q_values(PresentInputs(obs, None, torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.float64)))
    expected = 1 + (2 * math.e**2 + 3 * math.e**3) / (math.e**2 + math.e**3)
    assert float(q) == pytest.approx(expected, abs=1e-14)


def test_agents_that_are_not_in_the_game_change_nothing():
    """Bit for bit, whatever stands in their columns; and it is the game without them, up to the order of sums."""
    layout, gone = layout_of(), [1, 3]
    present = torch.ones(ROWS, 4)
    present[:, gone] = 0.0
    critics, inputs = critics_of(layout, ("a", "c")), inputs_of(layout, present=present)
    q = critics.q_values(inputs)
    others = PresentInputs(inputs.obs.clone(), None, present, inputs.actions.clone())
    for k in gone:
        slot = layout.slots[k]
        others.obs[:, slot.obs] = 50.0 + k
        others.actions[:, slot.actions] = -20.0
    assert torch.equal(critics.q_values(others), q)

    small = layout_of(("a", "c"), (3, 3))
    without = critics_of(small, ("a", "c"))
    theirs = named(critics.network)
    with torch.no_grad():
        for name, parameter in named(without.network).items():
            parameter.copy_(theirs[name][[0, 2]] if name == "agent_bias" else theirs[name])
    left = PresentInputs(inputs.obs[:, [0, 1, 2, 7, 8, 9]], None, torch.ones(ROWS, 2), inputs.actions[:, [0, 1, 4, 5]])
    torch.testing.assert_close(without.q_values(left), q, rtol=0, atol=1e-14)


def test_the_order_of_others_does_not_matter():
    """Two agents of one kind change places, with their biases: values of a third one stay, up to the order of sums."""
    layout = layout_of()
    critics, inputs = critics_of(layout, ("a",)), inputs_of(layout, present=torch.ones(ROWS, 4))
    q = critics.q_values(inputs)
    obs, actions = inputs.obs.clone(), inputs.actions.clone()
    obs[:, 7:10], obs[:, 10:] = inputs.obs[:, 10:], inputs.obs[:, 7:10]
    actions[:, 4:6], actions[:, 6:] = inputs.actions[:, 6:], inputs.actions[:, 4:6]
    with torch.no_grad():
        critics.network.agent_bias[[2, 3]] = critics.network.agent_bias[[3, 2]].clone()
    torch.testing.assert_close(critics.q_values(PresentInputs(obs, None, inputs.present, actions)), q, rtol=0, atol=1e-14)


@pytest.mark.parametrize("modules", [AGENTS, ("b", "d")])
def test_own_actions_are_replaced_and_others_get_no_gradient(modules):
    layout = layout_of()
    critics, inputs = critics_of(layout, modules, layer_norm=True), inputs_of(layout)
    own = numbers(len(modules), 1, ROWS, CODE, seed=4).requires_grad_()
    q = critics.q_values_with_own(inputs, own)
    (gradient,) = torch.autograd.grad(q.sum(), own)
    for k, module in enumerate(modules):
        actions = inputs.actions.clone()
        actions[:, layout.slots_of(module)[0].actions] = own[k, 0].detach()
        actions.requires_grad_()
        expected = critics.q_values(inputs.with_actions(actions))[k, 0]
        torch.testing.assert_close(q[k, 0], expected, rtol=0, atol=1e-13)
        (all_actions,) = torch.autograd.grad(expected.sum(), actions)
        mine = all_actions[:, layout.slots_of(module)[0].actions]
        torch.testing.assert_close(gradient[k, 0], mine, rtol=0, atol=1e-13)


def test_each_module_may_have_its_own_idea_of_actions():
    """As critics of modules that infer others' policies see them."""
    layout, modules = layout_of(), ("a", "c", "d")
    critics, inputs = critics_of(layout, modules), inputs_of(layout)
    ideas = numbers(3, ROWS, layout.action_dim, seed=5)
    own = numbers(3, 1, ROWS, CODE, seed=6)
    q, q_own = (f(inputs.with_actions(ideas), *a) for f, a in ((critics.q_values, ()), (critics.q_values_with_own, (own,))))
    for k in range(3):
        one = inputs.with_actions(ideas[k])
        torch.testing.assert_close(q[k], critics.q_values(one)[k], rtol=0, atol=1e-14)
        torch.testing.assert_close(q_own[k], critics.q_values_with_own(one, own)[k], rtol=0, atol=1e-14)


@pytest.mark.parametrize("agents", [6, 24])
def test_parameters_grow_with_the_number_of_agents_by_a_bias_only(agents):
    """Embedding 64 x (o + a), N biases, three 64 x 64, and an MLP from 128 to 64 to 1."""
    names = [f"agent_{k:02}" for k in range(agents)]
    network = AttentionCritic(layout_of(names, [10] * agents))
    count = sum(p.numel() for p in network.parameters())
    assert count == 64 * (10 + CODE) + 64 * agents + 3 * 64**2 + (128 * 64 + 64) + (64 + 1)


def test_presence_is_of_views_of_all_agents():
    with pytest.raises(ValueError, match="agents='own' and presence=True"):
        View("mine", agents="own", presence=True)
    schema = RowSchema(layout_of())
    assert View("all", presence=True).obs_dim(schema, "a") == schema.layout.obs_dim + 4


def test_heads_share_the_embedding():
    with pytest.raises(ValueError, match=r"hiddens=\[10\] cannot have 4 heads"):
        AttentionCritic(layout_of(), 0, (10,))
