"""Text in a page: nothing in it is markup, and nothing in it is invisible.

Characters that would change the writing direction of what follows, or that
cannot be seen, are shown as escapes, as in the text report.
"""

from __future__ import annotations

import re
from html import escape
from typing import Final
from urllib.parse import quote

from conforma.report.wrapping import harmless, harmless_line

_LONG: Final = 2000
_BEGINNING: Final = 400
# Code in backquotes, or an https address without what usually ends a sentence.
_MARKED: Final = re.compile(r"`([^`\n]+)`|(https://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]])")


def escaped(text: str) -> str:
    """The text in an element or an attribute in double quotes; its newlines stay."""
    return escape(harmless(text))


def line(text: str) -> str:
    """The same for text that must stay on its line."""
    return escape(harmless_line(text))


def message(text: str) -> str:
    """A message of any length as a block; of a long one only the beginning is open."""
    if len(text) <= _LONG:
        return f'<p class="message" dir="auto">{escaped(text)}</p>'
    return (
        f'<details class="long"><summary><span class="message">{escaped(text[:_BEGINNING])}…</span> '
        f'<span class="hint">{len(text):,} characters, show all</span></summary>'
        f'<p class="message" dir="auto">{escaped(text)}</p></details>'
    )


def prose(text: str) -> str:
    """What a rule says about itself: backquotes make code, https addresses are links."""
    pieces: list[str] = []
    end = 0
    for found in _MARKED.finditer(text):
        pieces.append(escaped(text[end : found.start()]))
        if found[1]:
            pieces.append(f"<code>{escaped(found[1])}</code>")
        else:
            address = escaped(found[2])
            pieces.append(f'<a href="{address}" rel="noopener noreferrer">{address}</a>')
        end = found.end()
    pieces.append(escaped(text[end:]))
    return "".join(pieces)


def filter_link(component: str) -> str:
    """The address within the page that shows one component only."""
    return f"#filter?component={quote(harmless_line(component), safe='')}"
