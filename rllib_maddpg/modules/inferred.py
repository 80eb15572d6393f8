"""Approximations of other modules' policies (Lowe et al. 2017, section 4.2): one for each pair of modules. No Ray here.

They are what a module knows of the others where it may not read their actors: networks from an agent's observation to the head
output of its actor, learned from what the agent was seen to do. Where the other module serves several agents, a one-hot says
which of them is meant; agents of one module share their actor, and need no approximation of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rllib_maddpg.modules.networks import MLP
from rllib_maddpg.modules.specs import INFERRED, NetworkSpec
from rllib_maddpg.rows.actions import ActionCodec
from rllib_maddpg.rows.joint_batch import JointBatch
from rllib_maddpg.rows.layout import JointLayout

# Bounds of the standard deviation of approximations, in action-code units: a box is 2 wide.
MIN_STD, MAX_STD = 0.05, 1.0


def inferred_name(layout: JointLayout, about: str) -> str:
    """Name of the approximations of a module. Its number stands in it, because an id need not be a name in Python."""
    return f"inferred_{layout.modules.index(about)}"


def std_name(layout: JointLayout, about: str) -> str:
    """Name of the networks that hold the standard deviation of these."""
    return f"{inferred_name(layout, about)}_std"


def has_std(codec: ActionCodec) -> bool:
    """Whether approximations of such actors need a standard deviation: the noise of a tanh box is no part of its actor."""
    return codec.noise == "additive"


def inferred_specs(layout: JointLayout, module_id: str, build: Callable[..., nn.Module]) -> list[NetworkSpec]:
    """The networks with which a module approximates all others.

    Args:
        layout: Of the game.
        module_id: The module that has them.
        build: Makes one from the widths of input and output; where the other module's agents observe images, also from its
            id, `about`.
    """
    specs = []
    for about in layout.modules:
        if about == module_id:
            continue
        codec, agents = layout.codec_of(about), len(layout.slots_of(about))
        widths = layout.obs_dim_of(about) + (agents if agents > 1 else 0), codec.dim
        name, lr = inferred_name(layout, about), "inferred_lr"
        known = {"about": about} if layout.slots_of(about)[0].image else {}
        specs.append(NetworkSpec(name, INFERRED, partial(build, *widths, **known), lr=lr, about=about))
        if has_std(codec):
            constant = partial(_constant, codec.dim)
            specs.append(NetworkSpec(std_name(layout, about), INFERRED, constant, lr=lr, has_target=False, about=about))
    return specs


def check_inferred(specs: Sequence[NetworkSpec], layout: JointLayout, module_id: str, module: str) -> None:
    """A module that is to approximate all others has the networks.

    Args:
        specs: Its networks.
        layout: Of the game.
        module_id: Its id.
        module: What it is called in errors.

    Raises:
        ValueError: Naming module and networks.
    """
    names = {spec.name for spec in specs}
    missing = [spec.name for spec in inferred_specs(layout, module_id, MLP) if spec.name not in names]
    if missing:
        raise ValueError(
            f"{module}: `infer_other_policies` is set, and `networks()` has none of the names {missing}. Add "
            "`*self.inferred_networks()` to what it returns, or set `infer_other_policies=False` for this module."
        )


def _constant(dim: int) -> MLP:
    """A network that sees nothing: its bias is what it says. So it is learned and kept as all others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return MLP(0, dim, hiddens=())


def inferred_inputs(joint: JointBatch, about: str, column: str) -> Tensor:
    """What approximations of a module see: of its n agents in B rows `[n * B, dim]`; in those of S games `[S, n * B, dim]`.

    Args:
        joint: The rows.
        about: The module.
        column: "obs" or "new_obs".
    """
    obs = joint.stack(joint.layout.everywhere(about), column)
    games, agents, rows, _ = obs.shape
    if agents > 1:
        eye = torch.eye(agents, dtype=obs.dtype, device=obs.device)
        obs = torch.cat([obs, eye.unsqueeze(1).expand(games, agents, rows, agents)], -1)
    return obs.flatten(1, 2) if joint.joint_rows.dim() == 3 else obs[0].flatten(0, 1)


def std_of(output: Tensor) -> Tensor:
    """Output of a network named `std_name` -> standard deviation between its bounds."""
    return MIN_STD + (MAX_STD - MIN_STD) * torch.sigmoid(output)
