"""Regular expressions as Go's RE2 reads them, run by Python's engine.

Identity patterns decide who may sign, so a pattern must not mean more here
than where it was written: ``$`` is the very end, classes are ASCII, and what
only one of the two engines knows is refused rather than guessed.
"""

from __future__ import annotations

import re
from typing import Final

_POSIX: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
# Escapes with one meaning in both engines (with re.ASCII), and those that need a new name.
_SAME: Final = frozenset("dDwWsSbBafnrtvx")
_RENAMED: Final = {"A": r"\A", "z": r"\Z"}
_GROUP: Final = re.compile(r"\(\?(?::|P?<(?P<name>[A-Za-z_]\w*)>|(?P<flags>[ims]+)(?P<end>[:)]))")
_COUNTED: Final = re.compile(r"\{\d+(?:,\d*)?\}\Z")
_LONGEST: Final = 4096


def compile_re2(pattern: str) -> re.Pattern[str]:
    """The pattern in Python's terms, to be used with ``search``.

    Raises ``ValueError`` for what RE2 would refuse and for the few things
    (Unicode classes, ungreedy mode) that have no faithful translation.
    """
    if len(pattern) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    out: list[str] = []
    position = 0
    flags = re.ASCII
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            piece, position = _escape(pattern, position)
        elif char == "[":
            piece, position = _character_class(pattern, position)
        elif pattern.startswith("(?", position):
            group = _GROUP.match(pattern, position)
            if group is None:
                raise ValueError("invalid or unsupported Perl syntax")
            piece, position = group[0].replace("(?<", "(?P<"), group.end()
            if group["end"] == ")":
                if out:
                    raise ValueError("flags are supported at the start of a pattern or group only")
                flags |= _flags(group["flags"])
                piece = ""
        else:
            piece = r"\Z" if char == "$" and not flags & re.MULTILINE else char
            position += 1
            # Python would read a second "+" as possessive; RE2 refuses it.
            repeated = char in "*+?" or (char == "}" and _COUNTED.search(pattern, 0, position))
            if repeated and pattern[position : position + 1] in ("*", "+"):
                raise ValueError("invalid nested repetition operator")
        out.append(piece)
    try:
        return re.compile("".join(out), flags)
    except (re.error, OverflowError, RecursionError) as cause:
        raise ValueError(f"error parsing regexp: {cause}") from cause


def _flags(letters: str) -> int:
    value = 0
    for letter in letters:
        value |= {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}[letter]
    return value


def _escape(pattern: str, position: int) -> tuple[str, int]:
    letter = pattern[position + 1 : position + 2]
    if letter == "Q":
        end = pattern.find(r"\E", position + 2)
        literal = pattern[position + 2 :] if end < 0 else pattern[position + 2 : end]
        return re.escape(literal), len(pattern) if end < 0 else end + 2
    if letter in _RENAMED:
        return _RENAMED[letter], position + 2
    if letter and (letter in _SAME or not letter.isalnum()):
        return f"\\{letter}", position + 2
    raise ValueError(f"invalid or unsupported escape sequence: `\\{letter}`")


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    out = ["["]
    position += 1
    if pattern[position : position + 1] == "^":
        out.append("^")
        position += 1
    first = True
    while True:
        char = pattern[position : position + 1]
        if not char:
            raise ValueError("missing closing ]")
        if char == "]" and not first:
            return "".join(out) + "]", position + 1
        if pattern.startswith("[:", position):
            end = pattern.find(":]", position)
            name = pattern[position + 2 : end] if end > 0 else ""
            if name not in _POSIX:
                raise ValueError(f"invalid character class range: `[:{name[:20]}:]`")
            out.append(_POSIX[name])
            position = end + 2
        elif char == "\\":
            piece, position = _escape(pattern, position)
            if piece in (r"\A", r"\Z", r"\b", r"\B"):
                raise ValueError(f"invalid escape sequence in a class: `{piece}`")
            out.append(piece)
        else:
            # Python warns of nested sets and set operations in these.
            out.append(f"\\{char}" if char in "[]&~|" else char)
            position += 1
        first = False
