"""The errors of this package, and the near misses that their messages name."""

import difflib
from collections.abc import Iterable


class EnvError(ValueError):
    """`env` or `env_config` cannot be used; the text names the key, its value, what is allowed and the fix."""


class EnvFailure(ValueError):
    """A running environment gave something of which no joint row can be made.

    Attributes:
        what: The agent or method and what is wrong with it, to be followed by where it happened.
        fix: What to do about it.
        can_pass: Whether a rebuilt env may do better; False for what its code does in every episode.
        is_turn: Whether a turn-based game looks like this, too.
    """

    def __init__(self, what: str, fix: str, can_pass: bool = True, is_turn: bool = False):
        super().__init__(f"{what.rstrip(',')}. {fix}")
        self.what, self.fix, self.can_pass, self.is_turn = what, fix, can_pass, is_turn


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" with the closest of `known`, or "" if none is close."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
