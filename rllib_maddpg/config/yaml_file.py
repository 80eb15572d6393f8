"""Reading YAML so that every message can name file, line and key."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from rllib_maddpg.config.require import shown
from rllib_maddpg.envs.errors import did_you_mean

KeyPath = tuple[str, ...]


# A value may stand in many places by YAML's aliases; a file that is more than this without them is no list of settings.
_MAX_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which `1e-3` is a number, too (YAML 1.1 asks for `1.0e-3`), and which says where it fails."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            # Such as a date in a 13th month, or a number of too many digits.
            what = f"{str(node.value)[:50]!r} cannot be read as {node.tag.rpartition(':')[2]} ({error})"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class YamlFile:
    """A YAML file that holds a mapping.

    Attributes:
        path: The file.
        data: Its content.
    """

    def __init__(self, path: str | Path):
        """Reads the file.

        Raises:
            ValueError: If it cannot be read, is no YAML, holds no mapping, has a key twice, or a value that holds itself.
        """
        self.path = Path(path)
        self._lines: dict[KeyPath, int] = {(): 1}
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # the second: another encoding, or a name that no file can have
            raise ValueError(f"{path} cannot be read ({error}). Name a YAML file, such as one of tune_configs/.") from error
        try:
            loader = _Loader(text)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ValueError(f"{path}:{line}: this is no YAML: it has the character {chr(error.character)!r}.") from error
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise self.error((), f"the file must hold keys and values, such as `env: simple_spread`, not {text[:40]!r}.")
            self._nodes = 0
            self._walk(node, (), ())
            self.data: dict[str, Any] = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ValueError(
                f"{self.path}:{line}:{self._key_in(line)} this is no YAML: {error.problem}. Check indentation and colons."
            ) from error
        except RecursionError as error:
            raise ValueError(f"{self.path}:{loader.line + 1}: this is nested too deeply.") from error
        finally:
            loader.dispose()

    def _walk(self, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> None:
        """Notes the lines of all keys, and finds keys that stand twice and values that hold themselves."""
        if node in above:
            raise self.error(path, "this value holds itself, by an alias (`*`). Write it out.")
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self.error(path, "the aliases (`*`) of this file stand for far too many values. Write them out.")
        if isinstance(node, yaml.SequenceNode):
            for n, item in enumerate(node.value):
                self._walk(item, (*path, str(n)), (*above, node))
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._lines[path] = key.start_mark.line + 1
                kind = "list" if isinstance(key, yaml.SequenceNode) else "mapping"
                raise self.error(path, f"a {kind} stands here as a key. Keys must be words.")
            inner = (*path, str(key.value))
            if inner in self._lines:
                self._lines[inner] = key.start_mark.line + 1
                raise self.error(inner, "this key stands here twice. Keep one of the two.")
            self._lines[inner] = key.start_mark.line + 1
            self._walk(value, inner, (*above, node))

    def _key_in(self, line: int) -> str:
        """The last key known to stand in a line, as errors show it."""
        paths = [path for path, where in self._lines.items() if where == line and path]
        return f" `{'.'.join(paths[-1])}`:" if paths else ""

    def error(self, path: KeyPath, text: str) -> ValueError:
        """An error at a key; a key that does not stand in the file has the line of what it belongs to."""
        known = path
        while known not in self._lines:
            known = known[:-1]
        key = f" `{'.'.join(path)}`:" if path else ""
        return ValueError(f"{self.path}:{self._lines[known]}:{key} {text}")

    def has(self, path: KeyPath) -> bool:
        """Whether the file has this key."""
        return path in self._lines

    def check_keys(self, path: KeyPath, value: Any, known: Collection[str], what: str) -> None:
        """Raises a ValueError unless `value`, found at `path`, is a mapping whose keys are all known."""
        if not isinstance(value, dict):
            raise self.error(path, f"{shown(value)} must be keys and values: {', '.join(known)}.")
        for key in value:
            if key not in known:
                hint = did_you_mean(str(key), known) or f" There are: {', '.join(known)}."
                raise self.error((*path, str(key)), f"this is no key of {what}.{hint}")
