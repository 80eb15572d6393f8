"""Names of shared learners, and what Ray calls their actors."""

from __future__ import annotations

import re
from typing import Any

# That of `shared_learner=True`.
DEFAULT_NAME = "default"
# Ray's namespace of all of them.
NAMESPACE = "rllib_maddpg"
NAME_WORDS = "the name of a shared learner (letters, digits and . : + - _)"
_NAME = re.compile(r"[\w.:+-]{1,200}")


def is_name(name: Any) -> bool:
    """Whether a shared learner can be called so."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def actor_name(name: str) -> str:
    """What Ray calls the actor."""
    return f"shared_learner:{name}"
