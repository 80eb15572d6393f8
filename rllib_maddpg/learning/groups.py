"""Networks of modules that are alike, computed as one. No Ray here."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rllib_maddpg.learning.common_groups import common_key, common_weights
from rllib_maddpg.learning.group_optimizer import GroupOptimizer
from rllib_maddpg.learning.group_settings import GroupSettings
from rllib_maddpg.modules.attention_critics import AttentionCritics
from rllib_maddpg.modules.common_weights import CommonWeights
from rllib_maddpg.modules.critics import SingleCritic, StackedCritics, StackedOwnCritics
from rllib_maddpg.modules.image_stack import ImageStack
from rllib_maddpg.modules.images import ImageNetwork, image_kind_of, is_plain_image_network
from rllib_maddpg.modules.specs import ACTOR, CRITIC, NetworkSpec
from rllib_maddpg.modules.stacking import SingleNetwork, StackedMLP, is_plain_mlp, shape_of
from rllib_maddpg.rows.schema import RowSchema


@dataclass
class ModuleSettings:
    """The settings of one module: `numbers` may differ within a group, `words` may not."""

    numbers: Mapping[str, float]
    words: Mapping[str, Any]
    # Any other reason not to be computed with other modules.
    apart: Hashable = field(default=None)


class NetworkGroup:
    """Networks of one name of G modules of n agents each, with equal shapes.

    Attributes:
        name, role, view, about: As in their `NetworkSpec`s.
        modules: Ids of the modules, in layout order.
        codec: Action codec of their agents, or of those that they are about; in a group of networks with a view that of the
            first module only.
        network: All of them as one; see `stacking` for networks without a view, `critics` for those with one.
        target: The same of their targets; None if they have none.
        settings: Of the modules.
        is_trainable: Whether they have optimizers.
        optimizer: Steps them, once the Learner has made it; None: they are not trained.
        place: Which of their modules' critics they are, in the order in which these are declared: the first one judges actors.
            Of actors the number of the sub-policy; the first group stands for all (`JointActions.policy`). 0 in other roles.
        common: What has one set of weights for all its modules, and perhaps for those of other groups, too; None: each network
            has weights of its own.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        schema: RowSchema,
        modules: Mapping[str, Any],
        settings: Mapping[str, ModuleSettings],
        stacked: bool,
        common: Sequence[CommonWeights] | None = None,
    ):
        self.name, self.role, self.view, self.about = spec.name, spec.role, spec.view, spec.about
        self.is_trainable = spec.lr is not None
        self.optimizer: GroupOptimizer | None = None
        self.place = _place(spec, next(iter(modules.values())))
        self.modules = tuple(modules)
        self.codec = schema.layout.codec_of(spec.about or self.modules[0])
        self._attributes, self._modules = spec.attributes, list(modules.values())
        self._joined_from = self._networks()
        self.common = None if common is None else common[0]
        if common is None:
            joined = [self._joined(schema, networks, stacked) for networks in self._joined_from]
        else:
            joined = [AttentionCritics(schema.layout, self.modules, weights) for weights in common]
        self.network, self.target = joined if spec.has_target else (*joined, None)
        own = [settings[m] for m in self.modules]
        self.settings = GroupSettings([s.numbers for s in own], own[0].words, self.network.parameters[0])

    def __len__(self) -> int:
        """G."""
        return len(self.modules)

    @property
    def is_first(self) -> bool:
        """Whether they are the first critics of their modules, or the first sub-policies."""
        return self.place == 0

    def _networks(self) -> list[list]:
        # Each update asks, and torch's own way to a submodule is slow.
        return [[module._modules[name] for module in self._modules] for name in self._attributes]

    def _joined(self, schema: RowSchema, networks: list, stacked: bool) -> Any:
        if self.view is None:
            if stacked and isinstance(networks[0], ImageNetwork):
                return ImageStack.of_actors(networks)
            return StackedMLP(networks) if stacked else SingleNetwork(networks[0])
        if not stacked:
            return SingleCritic(schema, self._modules[0], networks[0], self.view)
        if isinstance(networks[0], ImageNetwork):
            return ImageStack.of_critics(schema, self.modules, networks, self.view)
        if self.view.is_shared:
            return StackedCritics(schema, self.modules, networks, self.view)
        return StackedOwnCritics(networks)

    def is_tied(self) -> bool:
        """Whether the modules' networks still are those of this group."""
        pairs = zip(self._networks(), self._joined_from, strict=True)
        same = all(a is b for now, before in pairs for a, b in zip(now, before, strict=True))
        return same and self.network.is_tied() and (self.target is None or self.target.is_tied())


def group_networks(
    schema: RowSchema, modules: Mapping[str, Any], settings: Mapping[str, ModuleSettings], stacked: bool = True
) -> dict[str, list[NetworkGroup]]:
    """Puts the networks of all modules into as few groups as can be.

    Args:
        schema: Of the rows, with all modules and agents.
        modules: Module id -> `MADDPGTorchRLModule`, in layout order.
        settings: Of each module.
        stacked: False: each module by itself, with its own parameters.

    Returns:
        By the networks' names.
    """
    alike: dict[str, dict[Hashable, dict[str, Any]]] = {}
    specs: dict[tuple[str, Hashable], NetworkSpec] = {}
    for module_id, module in modules.items():
        for spec in module.network_specs:
            key = _key(spec, module, settings[module_id]) if stacked else None
            key = module_id if key is None else key
            specs.setdefault((spec.name, key), spec)
            alike.setdefault(spec.name, {}).setdefault(key, {})[module_id] = module
    common = common_weights(modules) if stacked else {}
    return {
        name: [
            NetworkGroup(
                specs[name, key], schema, members, settings, isinstance(key, tuple), common.get((name, next(iter(members))))
            )
            for key, members in by_key.items()
        ]
        for name, by_key in alike.items()
    }


def _key(spec: NetworkSpec, module: Any, settings: ModuleSettings) -> tuple | None:
    """Equal for networks that can be computed as one; None if it is for itself."""
    network = getattr(module, spec.name)
    common = common_key(spec, network)
    shape = common or _shape(network)
    if shape is None or (common is None and spec.view is not None and not module.has_plain_values):
        return None
    # Critics only ask where an agent's action lies and how wide it is, not what it means. Networks about other agents, which
    # are those of all modules of the group, do not ask for their own.
    action, agents = module.codec.key() if spec.view is None else module.codec.dim, module.num_agents
    if spec.about is not None:
        action = agents = None
    # Actors whose agents have their action masks elsewhere need other columns of the rows.
    mask = module.layout.slots_of(module.module_id)[0].mask if spec.role == ACTOR else None
    mask_at = None if mask is None else (mask.start, mask.stop)
    words = tuple((key, repr(value)) for key, value in settings.words.items())
    # What else a spec says must be the same, too; how a network was built and how fast it learns does not matter.
    kind = spec.role, spec.view, spec.about, spec.has_target, spec.lr is None, _place(spec, module)
    return kind, agents, shape, action, mask_at, words, settings.apart


def _shape(network: Any) -> tuple | None:
    """What networks must share to be computed as one; None: it is none of those that can be."""
    if is_plain_image_network(network):
        return image_kind_of(network)
    return shape_of(network) if is_plain_mlp(network) else None


def _place(spec: NetworkSpec, module: Any) -> int:
    if spec.role not in (ACTOR, CRITIC):
        return 0
    return [own.name for own in module.network_specs if own.role == spec.role].index(spec.name)


def actors_of(groups: Mapping[str, list[NetworkGroup]]) -> list[NetworkGroup]:
    """The groups of the networks that choose actions, of all sub-policies."""
    return of_role(groups, ACTOR)


def first_of(groups: Iterable[NetworkGroup]) -> list[NetworkGroup]:
    """Those of the first critics, or the first sub-policies, of their modules."""
    return [group for group in groups if group.is_first]


def of_role(groups: Mapping[str, list[NetworkGroup]], role: str) -> list[NetworkGroup]:
    """All groups of networks of a role."""
    return [group for by_name in groups.values() for group in by_name if group.role == role]


def once_each(groups: Iterable[NetworkGroup]) -> list[NetworkGroup]:
    """The groups; of those with the same weights the first one."""
    first: dict[int, NetworkGroup] = {}
    for group in groups:
        first.setdefault(id(group.common or group), group)
    return list(first.values())


def learning_in(groups: Iterable[NetworkGroup], modules: Iterable[str]) -> list[str]:
    """Those of the modules that have networks in one of the groups which learn."""
    there = {m for group in groups if group.is_trainable for m in group.modules}
    return [m for m in modules if m in there]


def trained(groups: Iterable[NetworkGroup], modules: Iterable[str]) -> list[NetworkGroup]:
    """Those in which one of the modules is."""
    wanted = set(modules)
    return [group for group in groups if not wanted.isdisjoint(group.modules)]
