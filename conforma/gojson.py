"""JSON text exactly as Go's ``encoding/json`` writes it.

Reports and policy input are compared byte for byte with those of the Go tool,
and rules may hash what they read, so the encoding is part of the contract
(specification of ``validate image``, sections 6 and 7.2): compact, ``<``,
``>`` and ``&`` escaped, U+2028 and U+2029 escaped, all other text literal, and
numbers in Go's shortest form unless they are a :class:`Numeral`.

Go writes struct fields in the order of their declaration and map keys sorted.
A Python ``dict`` stands for a struct and keeps its order; pass what Go holds
in a map through :func:`sorted_maps` first, or sort everything with
``sort_keys``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring as _quoted
from typing import Any, Self

_ESCAPES = [(c, f"\\u{ord(c):04x}") for c in "<>&\u2028\u2029"]
_LINES = {ord(c): f"\\u{ord(c):04x}" for c in "\u2028\u2029"}
_TO_ESCAPE = re.compile("[<>&\u2028\u2029]")
_LINE_SEPARATORS = re.compile("[\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BETWEEN_SPACES = re.compile(r'(?:[^ \t\r\n"]++|"(?:[^"\\]++|\\.)*+")++')
_LEAVES = frozenset({str, int, bool, type(None)})


class Numeral(float):
    """A number that is written in the digits it was read with, as Go's ``json.Number`` is.

    Its value is the nearest float, infinite for digits that no float is near
    to. Made for ``parse_float`` of the standard decoder, whose texts are JSON.
    """

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Take the text of one JSON number."""
        self = super().__new__(cls, text)
        self.text = text
        return self


def dumps(
    value: Any, *, sort_keys: bool = False, indent: str = "", escape_html: bool = True
) -> str:
    """The JSON text of ``value`` as ``json.Marshal`` writes it.

    With ``indent`` it has the layout of ``json.MarshalIndent`` with an empty
    prefix. ``escape_html=False`` is Go's ``SetEscapeHTML(false)``. Mappings of
    any kind, lists, tuples, strings, numbers, booleans and ``None`` can be
    written. Integers of any size keep every digit.

    Raises ``TypeError`` for other values and for keys that are not text, and
    ``ValueError`` for NaN and infinities that are no :class:`Numeral`.
    """
    if not indent and _is_plain(value):
        # The standard encoder differs in nothing else and is ten times as fast.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
        return _finished(text, escape_html)
    return _Writer(sort_keys, indent, escape_html).text(value)


def encode(
    value: Any, *, sort_keys: bool = False, indent: str = "", escape_html: bool = True
) -> bytes:
    """The same as :func:`dumps`, as UTF-8."""
    text = dumps(value, sort_keys=sort_keys, indent=indent, escape_html=escape_html)
    return text.encode()


def compact(raw: bytes) -> bytes:
    """One JSON value as ``json.Marshal`` embeds it: without insignificant white space.

    Key order, duplicate keys, number texts and escapes inside strings stay as
    they are; ``<``, ``>`` and ``&`` are escaped. Raises ``ValueError`` if ``raw`` is not
    exactly one JSON value in UTF-8.
    """
    text = raw.decode("utf-8")
    json.loads(text, parse_constant=_no_constant)
    return _escape("".join(_BETWEEN_SPACES.findall(text))).encode()


def sorted_maps(value: Any) -> Any:
    """A copy of ``value`` in which every mapping has its keys in code-point order."""
    if isinstance(value, Mapping):
        return {key: sorted_maps(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [sorted_maps(item) for item in value]
    return value


def number(value: float) -> str:
    """A floating-point number as Go prints it.

    Shortest digits that read back as the same value; the exponent form only
    below 1e-6 and from 1e21 on. Raises ``ValueError`` for NaN and infinities.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no JSON form")
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign + "0"
    mantissa, _, exponent_text = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    # digits * 10**(point - len(digits)), digits without outer zeros
    point = len(whole) + int(exponent_text or 0)
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    if -6 < point <= 21:
        if point <= 0:
            return f"{sign}0.{'0' * -point}{digits}"
        if len(digits) <= point:
            return f"{sign}{digits}{'0' * (point - len(digits))}"
        return f"{sign}{digits[:point]}.{digits[point:]}"
    exponent = point - 1
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    # Go prints at least two digits of an exponent but trims e-0X to e-X.
    return f"{sign}{digits[0]}{tail}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


class _Writer:
    """Writes one value; holds the options and the pieces."""

    def __init__(self, sort_keys: bool, indent: str, escape_html: bool) -> None:
        self._sort_keys = sort_keys
        self._indent = indent
        self._escape_html = escape_html
        self._pieces: list[str] = []

    def text(self, value: Any) -> str:
        self._write(value, "\n" if self._indent else "")
        return "".join(self._pieces)

    def _write(self, value: Any, newline: str) -> None:
        if isinstance(value, str):
            self._pieces.append(self._string(value))
        elif value is None:
            self._pieces.append("null")
        elif isinstance(value, bool):
            self._pieces.append("true" if value else "false")
        elif isinstance(value, int):
            self._pieces.append(int.__repr__(value))
        elif isinstance(value, Numeral):
            self._pieces.append(value.text)
        elif isinstance(value, float):
            self._pieces.append(number(value))
        elif isinstance(value, Mapping):
            self._mapping(value, newline)
        elif isinstance(value, list | tuple):
            self._sequence(value, newline)
        else:
            raise TypeError(f"{type(value).__name__} has no JSON form")

    def _mapping(self, value: Mapping[Any, Any], newline: str) -> None:
        if not value:
            self._pieces.append("{}")
            return
        inner = newline + self._indent
        separator = "{" + inner
        colon = ": " if self._indent else ":"
        for key in sorted(value) if self._sort_keys else value:
            if not isinstance(key, str):
                raise TypeError(f"a key must be text, not {type(key).__name__}")
            self._pieces.append(separator + self._string(key) + colon)
            self._write(value[key], inner)
            separator = "," + inner
        self._pieces.append(newline + "}")

    def _sequence(self, value: list[Any] | tuple[Any, ...], newline: str) -> None:
        if not value:
            self._pieces.append("[]")
            return
        inner = newline + self._indent
        separator = "[" + inner
        for item in value:
            self._pieces.append(separator)
            self._write(item, inner)
            separator = "," + inner
        self._pieces.append(newline + "]")

    def _string(self, text: str) -> str:
        return _finished(_quoted(text), self._escape_html)


def _finished(text: str, escape_html: bool) -> str:
    """Text from Python's encoder with the escapes that Go adds."""
    # Go holds no half surrogate pairs: decoding one gives U+FFFD.
    text = _SURROGATES.sub("\ufffd", text)
    if escape_html:
        return _escape(text)
    return text.translate(_LINES) if _LINE_SEPARATORS.search(text) else text


def _escape(text: str) -> str:
    """Escape in a JSON text what only occurs inside its strings."""
    if _TO_ESCAPE.search(text):
        for char, escaped in _ESCAPES:
            text = text.replace(char, escaped)
    return text


def _is_plain(value: Any) -> bool:
    """Whether there are only exact built-in types without floats and keys that are no text."""
    kind = type(value)
    if kind in _LEAVES:
        return True
    if kind is dict:
        if any(type(key) is not str for key in value):
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    return all(type(item) in _LEAVES or _is_plain(item) for item in items)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
