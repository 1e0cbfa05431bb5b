"""Text for a terminal: wrapped as Go's go-wordwrap does, and unable to command it.

Messages come from policies and registries. A control character or a change of
writing direction in them could forge or hide lines of a report, so the formats
for people show such characters as escapes; those for programs carry them
unchanged in their own encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_HOSTILE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Go's unicode.IsSpace without the newline, which always stays, and the no-break space.
_SPACE: Final = "\t\v\f\r \x85\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TOKEN: Final = re.compile(f"[{_SPACE}]+|[^{_SPACE}]+")


def harmless(text: str) -> str:
    """The text with every character that a terminal would obey shown as an escape."""
    if text.isprintable():  # none of them is, and nearly all text is
        return text
    return _HOSTILE.sub(lambda match: _escape(ord(match[0])), text)


def harmless_line(text: str) -> str:
    """The same for text that must stay on its line: tabs and newlines are shown as well."""
    if text.isprintable():
        return text
    return harmless(text).replace("\t", "\\t").replace("\n", "\\n")


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning with an ellipsis, in at most ``longest`` characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def wrapped(text: str, width: int) -> str:
    """The text broken at white space so that lines end at ``width`` where they can.

    White space before a break is dropped, newlines of the text stay, and words
    are never broken: one longer than ``width`` gets a line of its own.
    """
    return "\n".join("".join(_line(line, width)) for line in text.split("\n"))


def _line(line: str, width: int) -> Iterator[str]:
    column = 0
    space = ""
    for token in _TOKEN.findall(line):
        if token[0].isspace() and token[0] != "\xa0":
            space = token
            continue
        start = column + len(space)
        if start + len(token) > width and start > 1:
            yield "\n"
            column = len(token)
        else:
            yield space
            column = start + len(token)
        space = ""
        yield token
    if column + len(space) <= width:
        yield space


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
