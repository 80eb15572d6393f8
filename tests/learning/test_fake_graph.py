"""The fake of a CUDA graph, which must find what a GPU would get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_graph import CaptureError, FakeGraph
from graph_training import assert_replays_are_steps, same
from torch import Tensor, nn

from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.stacking import StackedMLP, wide_linear

STEPS = 5


def test_replays_are_eager_steps_bit_for_bit():
    assert_replays_are_steps(FakeGraph, "cpu", STEPS)


def test_an_update_of_stacked_networks_is_captured():
    """Hand-written autograd functions, which overwrite what they were given, `out=` arguments and views of one parameter."""

    def networks() -> tuple[StackedMLP, list[MLP]]:
        torch.manual_seed(1)
        mlps = [MLP(3, 1, (5, 5)) for _ in range(2)]
        return StackedMLP(mlps), mlps

    def step(net: StackedMLP, x: Tensor, velocity: list[Tensor]) -> Tensor:
        loss = net(x).square().sum() + wide_linear(x[0, 0], *net.parameters[:2]).mean()
        gradients = torch.autograd.grad(loss, net.parameters)
        with torch.no_grad():
            torch._foreach_lerp_(velocity, gradients, 0.1)
            torch._foreach_add_(net.parameters, velocity, alpha=-0.01)
        return loss.detach()

    x, graph = torch.zeros(2, 1, 7, 3), FakeGraph()
    (eager, eager_mlps), (graphed, mlps) = networks(), networks()
    velocities = [[torch.zeros_like(p) for p in net.parameters] for net in (eager, graphed)]
    loss = graph.capture(lambda: step(graphed, x, velocities[1]))
    for k in range(STEPS):
        x.copy_(torch.linspace(-1, 1 + k, x.numel()).view(x.shape))
        expected = step(eager, x, velocities[0])
        graph.replay()
        assert torch.equal(loss, expected)
        assert same(graphed.parameters, eager.parameters) and graphed.is_tied()
        for mine, theirs in zip(mlps, eager_mlps, strict=True):
            assert same(list(mine.parameters()), list(theirs.parameters()))


def test_python_numbers_are_frozen():
    """A number baked in is that of the capture, so a test of several replays finds it."""
    count, total = 0, torch.zeros(())

    def work():
        nonlocal count
        count += 1
        total.add_(count)

    graph = FakeGraph()
    graph.capture(work)
    for _ in range(3):
        graph.replay()
    assert total.item() == graph.replays == 3  # eager: 1 + 2 + 3


def test_addresses_are_frozen():
    holder = {"x": torch.ones(2)}
    graph = FakeGraph()
    result = graph.capture(lambda: holder["x"] * 2)
    holder["x"] = torch.full((2,), 5.0)
    graph.replay()
    assert result.tolist() == [2.0, 2.0]


def test_nothing_is_executed_at_capture():
    """Memory that is written directly, through a view, through `out`, and as one of a list."""
    x, y, counter = torch.arange(6.0).view(2, 3), [torch.zeros(2), torch.ones(2)], torch.zeros(1, dtype=torch.int64)
    out = torch.zeros(3)

    def work():
        x[0].mul_(10)
        x.t()[2].fill_(-1.0)
        torch.add(x[1], 1.0, out=out)
        torch._foreach_add_(y, 1.0)
        counter.add_(1)

    before = [t.clone() for t in (x, *y, counter, out)]
    graph = FakeGraph()
    graph.capture(work)
    assert same([x, *y, counter, out], before)
    graph.replay()
    assert x.tolist() == [[0.0, 10.0, -1.0], [3.0, 4.0, -1.0]] and out.tolist() == [4.0, 5.0, 0.0]
    assert [t.tolist() for t in (*y, counter)] == [[1.0, 1.0], [2.0, 2.0], [1]]


def test_what_is_made_at_capture_is_poisoned_until_a_replay():
    kept = {}

    def work():
        kept["scratch"] = torch.empty(2)
        kept["constant"] = torch.ones(2)
        kept["index"] = torch.arange(3)
        kept["flag"] = kept["constant"] < 0
        return kept["constant"][kept["index"][:2]] + 1

    graph = FakeGraph()
    result = graph.capture(work)
    assert all(t.isnan().all() for t in (result, kept["constant"], kept["scratch"]))
    assert (kept["index"] < -(2**60)).all() and kept["flag"].all()
    with pytest.raises(IndexError):
        torch.ones(3)[kept["index"]]
    graph.replay()
    assert result.tolist() == [2.0, 2.0] and kept["index"].tolist() == [0, 1, 2] and not kept["flag"].any()
    assert kept["scratch"].isnan().all(), "nothing is executed for memory without values"


def test_views_share_memory():
    """Views of what was there, of what was made, and by operations whose schema does not say so."""
    x = torch.zeros(4)

    def work():
        made = x + 1
        view = made.view(2, 2)[1]
        view.mul_(3)
        copied = made.clone().t().unsqueeze_(0)
        return made, view, x[1:3], copied.squeeze_(), (made.view(2, 2) @ torch.eye(2)).flatten()

    graph = FakeGraph()
    made, view, part, copied, product = graph.capture(work)
    assert part.data_ptr() == x[1:].data_ptr() and view.data_ptr() == made[2:].data_ptr()
    for start in (1.0, 2.0):
        x.fill_(start)
        graph.replay()
        expected = [start + 1] * 2 + [3 * (start + 1)] * 2
        assert made.tolist() == copied.tolist() == product.tolist() == expected
        assert view.tolist() == expected[2:] and part.tolist() == [start] * 2


def test_results_of_several_operations_in_place_are_in_order():
    """An operation whose result is another's argument reads what the same replay made."""
    x = torch.ones(2)
    graph = FakeGraph()

    def work():
        before = x.clone()
        x.mul_(2)
        return before, x - before, torch.topk(x, 1), torch.split(x * 1, 1)

    before, gain, (top, _), halves = graph.capture(work)
    for k in range(3):
        graph.replay()
        assert before.tolist() == gain.tolist() == [2.0**k] * 2
        assert top.tolist() == halves[1].tolist() == [2.0 ** (k + 1)]


X = torch.arange(6.0).view(2, 3)
ROWS, MASK = torch.tensor([1, 0]), X > 1
GENERATOR = torch.Generator()

FORBIDDEN = {
    "item": lambda: X[0, 1].item(),
    "float": lambda: float(X[0, 1]),
    "bool": lambda: bool(X[0, 1] > 0),
    "equal": lambda: torch.equal(X, X),
    "index by a 0-dim tensor": lambda: X[ROWS[0]],
    "tolist": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "asarray": lambda: np.asarray(X),
    "cpu": lambda: X.cpu(),
    "nonzero": lambda: X.nonzero(),
    "where": lambda: torch.where(MASK),
    "masked_select": lambda: X.masked_select(MASK),
    "unique": lambda: X.unique(),
    "boolean index": lambda: X[MASK],
    "boolean index in between": lambda: X[:, MASK[0]],
    "write by a boolean index": lambda: X.index_put_((MASK,), X[0, 0]),
    "repeat_interleave": lambda: X.repeat_interleave(ROWS, 0),
    "tensor": lambda: torch.tensor([1.0, 2.0]),
    "scalar tensor": lambda: torch.tensor(1.0),
    "as_tensor": lambda: torch.as_tensor([1.0, 2.0]),
    "new_tensor": lambda: X.new_tensor([1.0]),
    "from_numpy": lambda: torch.from_numpy(np.ones(2)),
    "index by a list": lambda: X[[1, 0]],
    "index by NumPy": lambda: X[np.array([1, 0])],
    "memory of NumPy": lambda: torch.frombuffer(np.ones(2), dtype=torch.float64) + 1,
    "another device": lambda: X.to("meta"),
    "copy from another device": lambda: X.copy_(torch.empty(2, 3, device="meta")),
    "rand": lambda: torch.rand(2),
    "generator": lambda: torch.randint(3, (2,), generator=GENERATOR),
    "normal_": lambda: torch.empty(2).normal_(generator=GENERATOR),
    "dropout": lambda: nn.functional.dropout(X),
    "resize_": lambda: torch.empty(2).resize_(100),
    "larger out": lambda: torch.add(X, 1.0, out=torch.empty(0)),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(name):
    """It raises with the line that did it, and takes back what was written before."""
    target = torch.zeros(2)

    def work():
        target.add_(1)
        FORBIDDEN[name]()

    graph = FakeGraph()
    with pytest.raises(CaptureError, match=r"test_fake_graph\.py:\d+, in <lambda>"):
        graph.capture(work)
    assert not target.any()
    assert X.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "read again after the capture"
    with pytest.raises(CaptureError, match="Nothing"):
        graph.replay()


@pytest.mark.parametrize(
    ("read", "what"), [(lambda g: g.sum().item(), "_local_scalar_dense"), (lambda g: g.tolist()[0], "tolist")]
)
def test_forbidden_in_a_backward_pass(read, what):
    """In the backward of an autograd function, too, with its line."""

    class Peeks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * read(grad)

    x = torch.ones(2, requires_grad=True)
    with pytest.raises(CaptureError, match=rf"{what}.*test_fake_graph\.py:\d+, in <lambda>"):
        FakeGraph().capture(lambda: torch.autograd.grad(Peeks.apply(x).sum(), x))


ALLOWED = {
    "row numbers": lambda: X[ROWS],
    "index_select": lambda: X.index_select(0, ROWS),
    "numbers of Python": lambda: torch.where(MASK, X * 2.0 - 1, 0.0).clamp(min=0.5) ** 2,
    "full": lambda: torch.full((2,), 3.0) + torch.zeros(2) + torch.arange(2),
    "one-hot": lambda: torch.zeros(2, 3).scatter_(1, X.argmax(1, keepdim=True), 1.0),
    "integers": lambda: (ROWS * 0x1234567 ^ (ROWS >> 3)) & 255,
    "reductions": lambda: (X.amax(1), X.isfinite().all(), X.softmax(-1), torch.cat([X, X]), X.max(1)),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    """The same values as without a capture."""
    graph = FakeGraph()
    results = graph.capture(ALLOWED[name])
    graph.replay()
    expected = ALLOWED[name]()
    same_as = [results] if isinstance(results, Tensor) else list(results)
    for ours, value in zip(same_as, [expected] if isinstance(expected, Tensor) else list(expected), strict=True):
        pairs = [(ours, value)] if isinstance(value, Tensor) else zip(ours, value, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_graph_is_captured_once():
    graph = FakeGraph()
    assert FakeGraph.why_not(torch.device("cpu")) == ""
    assert graph.warm_up(lambda: 3) == 3
    graph.capture(lambda: X + 1)
    assert graph.names() == ["aten.add.Tensor"]
    with pytest.raises(CaptureError, match="already"):
        graph.capture(lambda: X)
