"""Reading the fields of a parsed document the way Go's JSON decoder does.

Field names match whatever their case, ``null`` is the same as absent, unknown
fields are ignored, and a value of another type is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class BadDocument(ValueError):
    """A document whose shape is not the expected one; says where."""


class Record:
    """One JSON object; ``where`` names it in errors."""

    def __init__(self, value: Any, where: str) -> None:
        """Raises ``BadDocument`` unless ``value`` is an object or ``null``.

        Also for a field in two spellings: other programs that read the document
        would take another one of them, and release what was not validated.
        """
        if value is not None and not isinstance(value, Mapping):
            raise BadDocument(f"{where} must be an object, not {_kind(value)}")
        self._fields: dict[str, Any] = {}
        self._where = where
        for key, item in (value or {}).items():
            folded = str(key).casefold()
            if folded in self._fields:
                raise BadDocument(f"{where} has the field {folded} in two spellings")
            self._fields[folded] = item

    def get(self, name: str) -> Any:
        """The value of a field, ``None`` if it is absent."""
        return self._fields.get(name.casefold())

    def text(self, name: str) -> str:
        """A text field, ``""`` if it is absent. Raises ``BadDocument``."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise BadDocument(f"{name} in {self._where} must be text, not {_kind(value)}")
        return value

    def record(self, name: str) -> Record:
        """An object field, empty if it is absent. Raises ``BadDocument``."""
        return Record(self.get(name), name)

    def items(self, name: str) -> Sequence[Any]:
        """A list field, empty if it is absent. Raises ``BadDocument``."""
        value = self.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise BadDocument(f"{name} in {self._where} must be a list, not {_kind(value)}")
        return value


def _kind(value: object) -> str:
    names: dict[type, str] = {
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
