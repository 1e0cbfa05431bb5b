"""Reading ``WWW-Authenticate``: what a server wants to be shown (RFC 9110, 11.6.1).

Tolerant on purpose: registries send several challenges in one header or in
many, commas inside quotes, and schemes nobody here speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct, field

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(
    rf"\s*({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|({_WORD[:-2]}:/?@\[\]]*))"
)
_SCHEME: Final = re.compile(rf"\s*({_WORD})(?:[ \t]+|\s*(?=,|$))")
_SKIP: Final = re.compile(r"[^,\"]*(?:\"(?:[^\"\\]|\\.)*\"?[^,\"]*)*,?")


class Challenge(Struct, frozen=True):
    """One way to authenticate; the scheme and the parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.parameters.get(name, "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Every challenge of every header, in order; what cannot be read is skipped."""
    found: list[Challenge] = []
    for header in headers:
        found.extend(_parse(header))
    return tuple(found)


def _parse(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        parameter = _PARAMETER.match(header, position)
        scheme = None if parameter else _SCHEME.match(header, position)
        if parameter and found:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1][1].setdefault(name.lower(), value)
            position = parameter.end()
        elif scheme:
            found.append((scheme[1].lower(), {}))
            position = scheme.end()
            continue
        skipped = _SKIP.match(header, position)
        end = skipped.end() if skipped else position
        position = end if end > position else position + 1
    return [Challenge(scheme, parameters) for scheme, parameters in found]
