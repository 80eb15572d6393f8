"""The one error of this package, and the near misses that its messages name."""

import difflib
from collections.abc import Iterable


class EnvError(ValueError):
    """`env` or `env_config` cannot be used; the text names the key, its value, what is allowed and the fix."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" with the closest of `known`, or "" if none is close."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
