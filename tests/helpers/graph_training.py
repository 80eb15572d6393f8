"""A training step of a small network, to be made a graph of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Training:
    """A network, a fused Adam with its rate in a tensor, and rows that change from step to step.

    Attributes:
        steps: How often Python made a step.
    """

    def __init__(self, device: str = "cpu"):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
        self.rate = torch.tensor(1e-2, device=device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.rate, fused=True, capturable=device != "cpu")
        self.found_inf = self.optimizer.found_inf = torch.zeros((), device=device)
        self.rows = torch.zeros(6, 4, device=device)
        self.steps = 0
        for parameter in self.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()  # makes the moments

    def step(self) -> dict[str, Tensor]:
        """The loss, and whether a gradient is not finite, which leaves everything as it is."""
        self.steps += 1
        loss = self.net(self.rows).square().mean()
        gradients = torch.autograd.grad(loss, list(self.net.parameters()))
        bad = torch.stack([~g.isfinite().all() for g in gradients]).any()
        self.found_inf.copy_(bad)
        for parameter, gradient in zip(self.net.parameters(), gradients, strict=True):
            parameter.grad.copy_(gradient)
        self.optimizer.step()
        return {"loss": loss.detach(), "bad": bad}

    def give(self, k: int) -> None:
        """The rows and the rate of step k; those of step 2 are not finite."""
        generator = torch.Generator().manual_seed(k)
        rows = torch.randn(self.rows.shape, generator=generator)
        rows[0, 0] = np.nan if k == 2 else 0.0
        self.rows.copy_(rows)
        self.rate.fill_(1e-2 / (k + 1))

    def state(self) -> list[Tensor]:
        """Copies of weights, moments and clocks, on the CPU."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [t.detach().cpu().clone() for t in (*self.net.parameters(), *moments)]


def same(ours: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def assert_replays_are_steps(graph_class: type, device: str, steps: int = 5) -> None:
    """A step captured once and replayed is as many eager steps, bit for bit, and the capture itself changes nothing."""
    eager, graphed = Training(device), Training(device)
    graph = graph_class(torch.device(device))
    for training, make in ((eager, lambda work: work()), (graphed, graph.warm_up)):
        training.give(7)
        make(training.step)
    start = graphed.state()
    assert same(start, eager.state()), "the warm-up is a step"
    results = graph.capture(graphed.step)
    assert same(graphed.state(), start), "something has been executed"
    for k in range(steps):
        for training in (eager, graphed):
            training.give(k)
        expected = eager.step()
        graph.replay()
        assert torch.equal(results["bad"], expected["bad"]) and bool(results["bad"]) == (k == 2)
        assert torch.equal(results["loss"], expected["loss"]) or k == 2
        assert same(graphed.state(), eager.state()), k
    assert not same(graphed.state(), start)
    assert (graphed.steps, eager.steps) == (2, 1 + steps), "Python does not run again"
