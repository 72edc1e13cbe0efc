"""Reading a config: inheritance, overrides and refusals that say what to write instead."""

import ast
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fvcore.common.config
import yaml

BASE_KEY = fvcore.common.config.BASE_KEY

# Where a node keeps the defaults of the blocks that a user may name in it.  yacs keeps its own state in
# ``__dict__`` too, so cloning, freezing and pickling carry it along.
_BLOCK = "__block__"

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list such as [a, b]",
    tuple: "a list such as [a, b]",
}


class ConfigError(ValueError):
    """A config file or an override that cannot be used; the message names the key or file and the remedy."""


class CfgNode(fvcore.common.config.CfgNode):
    """fvcore's config node, stricter: no key passes unknown, no value passes in the wrong type.

    A merge that is refused leaves the config as it was.
    """

    def declare_open(self, blocks: Mapping[str, "CfgNode"]) -> None:
        """Lets users name blocks of their own in some nodes.

        Args:
            blocks: dotted key of the node -> defaults of every block in it.
        """
        for key, block in blocks.items():
            node = self
            for part in key.split("."):
                node = node[part]
            node.__dict__[_BLOCK] = block

    @property
    def block_defaults(self) -> "CfgNode | None":
        """The defaults of a block in this node, or ``None`` if its keys are fixed."""
        return self.__dict__.get(_BLOCK)

    def merge_from_file(self, cfg_filename: str | os.PathLike[str]) -> None:
        """Merges a YAML file, after the file that its ``_BASE_`` names (relative to it; ``~`` is expanded).

        Raises:
            ConfigError: missing or broken file, ``_BASE_`` in a circle, unknown key, or a value of the wrong type.
        """
        parts = [_checked(self, self, given, "", f" in {file}") for file, given in _read_chain(cfg_filename)]
        for part in parts:
            self._assign(part)

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges a config or a nested dictionary.

        Raises:
            ConfigError: unknown key, or a value of the wrong type.
        """
        self._assign(_checked(self, self, cfg_other, "", ""))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges ``[KEY, VALUE, KEY, VALUE, ...]``; a value that is text is read as a Python or YAML literal.

        Raises:
            ConfigError: a key without a value, an unknown key, or a value of the wrong type.
        """
        if len(cfg_list) % 2:
            words = " ".join(map(str, cfg_list))
            raise ConfigError(
                f"config overrides are pairs KEY VALUE (not KEY=VALUE), but {len(cfg_list)} words were given: {words}"
            )
        parts: list[dict[str, Any]] = []
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            default = _find(self, key)
            part = _parse(value, default) if isinstance(value, str) else value
            for name in reversed(key.split(".")):
                part = {name: part}
            parts.append(_checked(self, self, part, "", ""))
        for part in parts:
            self._assign(part)

    def dump(self, **kwargs: Any) -> str:
        """The config as YAML, in the order of the schema; ``merge_from_file`` reads it back to an equal config."""
        return str(super().dump(**{"sort_keys": False, **kwargs}))

    def _assign(self, checked: Mapping[str, Any]) -> None:
        if self.is_frozen():
            raise AttributeError("the config is frozen; call defrost() before merging into it")
        for key, value in checked.items():
            if key not in self:
                assert self.block_defaults is not None
                self[key] = self.block_defaults.clone()
            if isinstance(self[key], CfgNode):
                self[key]._assign(value)
            else:
                self[key] = value


def _checked(root: CfgNode, node: CfgNode, given: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    """``given`` with every key known to ``node`` and every value of its default's type."""
    checked: dict[str, Any] = {}
    for key, value in given.items():
        full_key = f"{prefix}{key}"
        default = _default(root, node, key, full_key, where)
        if not isinstance(default, CfgNode):
            checked[key] = _coerced(value, default, full_key, where)
        elif value is None:  # a heading whose keys are all commented out
            checked[key] = {}
        elif isinstance(value, Mapping):
            checked[key] = _checked(root, default, value, f"{full_key}.", where)
        else:
            raise ConfigError(
                f"config key {full_key}{where} is {value!r}; expected a group of keys: {', '.join(default) or 'names'}"
            )
    return checked


def _default(root: CfgNode, node: CfgNode, key: Any, full_key: str, where: str) -> Any:
    if key in node:
        return node[key]
    if node.block_defaults is not None and isinstance(key, str):
        return node.block_defaults
    if root.key_is_renamed(full_key):
        new_name = root.__dict__[CfgNode.RENAMED_KEYS][full_key]
        raise ConfigError(f"config key {full_key}{where} was renamed; write {new_name}")
    raise ConfigError(f"unknown config key {full_key}{where}{_suggestion(root, node, str(key), full_key)}")


def _suggestion(root: CfgNode, node: CfgNode, key: str, full_key: str) -> str:
    """``; did you mean X?`` with the closest key of the same node, else with one of the same name elsewhere."""
    close = difflib.get_close_matches(key.upper(), list(node), n=1)
    if close:
        return f"; did you mean {full_key[: len(full_key) - len(key)]}{close[0]}?"
    elsewhere = [known for known in _all_keys(root) if known.rpartition(".")[2] == key.upper()]
    return f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def _all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all nodes and values; ``<name>`` stands for the name of a block."""
    for key, value in node.items():
        if node.block_defaults is None:
            yield f"{prefix}{key}"
            if isinstance(value, CfgNode):
                yield from _all_keys(value, f"{prefix}{key}.")
    if node.block_defaults is not None:
        yield from _all_keys(node.block_defaults, f"{prefix}<name>.")


def _find(root: CfgNode, full_key: str) -> Any:
    """The default of a dotted key."""
    found: Any = root
    parts = str(full_key).split(".")
    for depth, part in enumerate(parts):
        if not isinstance(found, CfgNode):
            raise ConfigError(f"unknown config key {full_key}; {'.'.join(parts[:depth])} has no keys in it")
        found = _default(root, found, part, ".".join(parts[: depth + 1]), "")
    return found


def _parse(text: str, default: Any) -> Any:
    """The literal that ``text`` is; where text is expected only quotes are taken off."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError):
        value = text
        if not isinstance(default, str):
            try:
                value = yaml.safe_load(text)  # true, [coco_pose, lip_parsing]
            except yaml.YAMLError:
                return text
    return text if isinstance(default, str) and not isinstance(value, str) else value


def _coerced(value: Any, default: Any, full_key: str, where: str) -> Any:
    """``value`` in the type of ``default``; elements of a list take the type that the default's elements share."""
    expected = type(default)
    if default is None or (type(value) is expected and expected not in (list, tuple)):
        return value
    if expected is float and not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4, without a point, as text
        except ValueError:
            pass
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        if len({type(element) for element in default}) == 1:
            value = [_coerced(element, default[0], f"{full_key}[{i}]", where) for i, element in enumerate(value)]
        return expected(value)
    raise ConfigError(f"config key {full_key}{where} is {value!r}; expected {expected.__name__}: {_EXPECTED[expected]}")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which plain YAML drops the first silently."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"key {key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return node


def _read_chain(path: str | os.PathLike[str], children: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """The files that a config inherits from, outermost base first, and the file itself last."""
    file = Path(os.path.normpath(Path(path).expanduser()))
    chain = (*children, file)
    if file.resolve() in [child.resolve() for child in children]:
        raise ConfigError(f"{BASE_KEY} goes in a circle: {' -> '.join(map(str, chain))}")
    given = _read_yaml(file, children)
    base = given.pop(BASE_KEY, None)
    if base is None:
        return [(file, given)]
    if not isinstance(base, str):
        raise ConfigError(f"{BASE_KEY} in {file} is {base!r}; expected the path of one file, relative to {file.parent}")
    return [*_read_chain(file.parent / Path(base).expanduser(), chain), (file, given)]


def _read_yaml(file: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    asked = f", which {children[-1]} names as its {BASE_KEY}" if children else ""
    try:
        given = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"no config file {file}{asked}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config file {file}{asked}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config file {file}{line} is not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {file} is not valid YAML: {error}") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"config file {file}{asked} is not a mapping of keys to values")
    return given
