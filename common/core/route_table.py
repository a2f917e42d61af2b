"""Which permission each route of the program behind asks for: a table of methods and paths, and how a path is read.

What is judged has to be what the program behind will see. So a path that could be read in two ways is no path at all:
it is refused, however harmless it looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from common.core.errors import BadField
from common.core.permissions import Permission, Registry

MAX_PATH_LENGTH = 4096
MAX_PARTS = 64
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

Kind = Literal["public", "signed-in", "session", "denied", "permission"]


class Rule(NamedTuple):
    """What a route asks of its caller: nothing (``public``), any active account (``signed-in``), one that has logged in
    and shows no API token (``session``), a permission; or it is ``denied`` to everybody."""

    kind: Kind
    permission: Permission | None = None

    def __str__(self) -> str:
        return str(self.permission) if self.permission else self.kind


PUBLIC, SIGNED_IN, SESSION, DENIED = Rule("public"), Rule("signed-in"), Rule("session"), Rule("denied")
_KINDS = {rule.kind: rule for rule in (PUBLIC, SIGNED_IN, SESSION, DENIED)}

# Letters, digits and marks that mean nothing to anybody's router; no ';' and ',', which some take parameters after.
_PART = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+=:@-]|%[0-9A-Fa-f]{2})+")
_ESCAPE = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
# What an escape must not hide: separators, what is nothing but itself (RFC 3986, 2.3), and another escape.
_NOT_ESCAPED = re.compile(r"[A-Za-z0-9._~;,/\\%?#\x00-\x1f\x7f-\x9f-]")
_PATTERN_PART = re.compile(r"[A-Za-z0-9._~:@-]+|\{[a-z_]+\}")


class TableError(Exception):
    """A table that can't be used: one sentence that names the line at fault and what is expected."""


def parts_of(target: str) -> tuple[str, ...] | None:
    """The decoded parts of the path in a request's target, as it came over the wire; None where it is not plain.

    Plain is what everybody reads alike: a path from the root without empty parts (one slash at the end is none), dots
    for a name, backslashes, escapes of what needs none, of separators or of control characters, and all in UTF-8.
    """
    path = target.partition("?")[0]
    if not path.startswith("/") or len(path) > MAX_PATH_LENGTH or "#" in target:
        return None
    if path == "/":
        return ()
    parts = path[1:].removesuffix("/").split("/")
    if len(parts) > MAX_PARTS:
        return None
    decoded = [_decoded(part) for part in parts]
    return None if None in decoded else tuple(part for part in decoded if part is not None)


def _decoded(part: str) -> str | None:
    if not _PART.fullmatch(part) or not part.strip("."):
        return None
    try:
        hidden = "".join(unquote_to_bytes(escape).decode() for escape in _ESCAPE.findall(part))
        decoded = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return None
    return None if _NOT_ESCAPED.search(hidden) else decoded


@dataclass(slots=True)
class _Node:
    """The routes below one part of a path: of exactly this path, and of whatever begins like it."""

    literal: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    here: dict[str, Rule] = field(default_factory=dict)
    below: dict[str, Rule] = field(default_factory=dict)


class RouteTable:
    """The rules by method and path. What no line is about has the rule ``unmatched``."""

    def __init__(self, *, unmatched: Rule = DENIED, pass_tokens: bool = False) -> None:
        self.unmatched = unmatched
        self.pass_tokens = pass_tokens
        self._root = _Node()

    def add(self, line: str, rule: Rule) -> None:
        """Add a line: methods (``GET``, ``GET|POST``, ``*``) and a path, in which ``{name}`` is any one part, and
        ``**`` at the end whatever follows, also nothing. Raises TableError."""
        methods, _, path = line.strip().partition(" ")
        if not path.startswith("/"):
            raise TableError(f"'{line}': expected is a line such as 'GET /v1/kb/list'.")
        node, below = self._node(line, path.strip())
        rules = node.below if below else node.here
        for method in METHODS if methods == "*" else methods.split("|"):
            if method not in METHODS:
                raise TableError(f"'{line}': expected is one of {', '.join(METHODS)}, several with | between, or *.")
            if method in rules:
                raise TableError(f"'{line}': there is a line for {method} of this path already ({rules[method]}).")
            rules[method] = rule

    def _node(self, line: str, path: str) -> tuple[_Node, bool]:
        parts = path[1:].split("/") if path != "/" else []
        below = bool(parts) and parts[-1] == "**"
        node = self._root
        for part in parts[:-1] if below else parts:
            if not _PATTERN_PART.fullmatch(part):
                raise TableError(f"'{line}': a part of a path is a name, {{name}}, or ** at the end.")
            if part.startswith("{"):
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literal.setdefault(part, _Node())
        return node, below

    def rule(self, method: str, target: str) -> Rule:
        """What a request asks of its caller: that of the line that fits best, names before ``{name}`` before ``**``.

        HEAD counts as GET. OPTIONS, which browsers send without a credential, is public where any method is not denied.
        Denied are methods that are none of these, targets that are not plain (``parts_of``), and those that some other
        line would be about if letters in upper case were in lower case.
        """
        parts = parts_of(target)
        if parts is None:
            return DENIED
        if method == "OPTIONS":
            found = [self._decided(each, parts) for each in METHODS]
            return PUBLIC if any(rule.kind != "denied" for rule in found) else DENIED
        return self._decided("GET" if method == "HEAD" else method, parts)

    def _decided(self, method: str, parts: tuple[str, ...]) -> Rule:
        if method not in METHODS:
            return DENIED
        found = _find(self._root, method, parts)
        lowered = tuple(part.lower() for part in parts)
        if lowered != parts and _find(self._root, method, lowered) != found:
            return DENIED
        return self.unmatched if found is None else found


def _find(node: _Node, method: str, parts: tuple[str, ...]) -> Rule | None:
    if not parts:
        return node.here.get(method) or node.below.get(method)
    first, rest = parts[0], parts[1:]
    for child in (node.literal.get(first), node.any):
        found = _find(child, method, rest) if child is not None else None
        if found is not None:
            return found
    return node.below.get(method)


def parse_table(document: object, registry: Registry) -> RouteTable:
    """The table in a document of the form ``{unmatched, pass_tokens, rules: {rule: [line]}}``. Raises TableError.

    A rule is ``public``, ``signed-in``, ``session``, ``denied``, or a registered pair ``resource:action``.
    """
    if not isinstance(document, dict):
        raise TableError("expected are the keys unmatched, pass_tokens and rules.")
    unknown = document.keys() - {"unmatched", "pass_tokens", "rules"}
    if unknown:
        raise TableError(
            f"there is no key '{sorted(map(str, unknown))[0]}'; there are unmatched, pass_tokens and rules."
        )
    pass_tokens = document.get("pass_tokens", False)
    if not isinstance(pass_tokens, bool):
        raise TableError("pass_tokens: expected is true or false.")
    table = RouteTable(unmatched=_rule(document.get("unmatched", "denied"), registry), pass_tokens=pass_tokens)
    rules = document.get("rules")
    if not isinstance(rules, Mapping):
        raise TableError("rules: expected are rules, each with a list of lines.")
    for name, lines in rules.items():
        rule = _rule(name, registry)
        if not isinstance(lines, list):
            raise TableError(f"rules: {name}: expected is a list of lines.")
        for line in lines:
            table.add(str(line), rule)
    return table


def _rule(name: object, registry: Registry) -> Rule:
    if isinstance(name, str) and name in _KINDS:
        return _KINDS[name]
    resource, colon, action = str(name).partition(":")
    if not colon:
        raise TableError(f"'{name}': expected is {', '.join(_KINDS)}, or a pair such as dataset:read.")
    try:
        return Rule("permission", registry.permission(resource, action))
    except BadField as error:
        raise TableError(f"'{name}': {error.message}") from error
