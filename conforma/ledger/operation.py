"""One thing to publish: which content under which path, and when it arrived.

Operations are small files that name content which is already durable. Their
identity makes them applied once however often they are dropped; their order
is the order of arrival, and that of one publisher never changes.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from conforma.errors import OperationRefused

FORMAT: Final = 1
Kind = Literal["publish", "bump"]
_KINDS: Final = ("publish", "bump")
_ID: Final = re.compile(r"(?P<time>\d{20})-(?P<publisher>[0-9a-f]{12})-(?P<number>\d{10})")
#: Plain names only: no dots that walk up, nothing that canonical JSON would escape.
_PATH: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)+")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TEXT: Final = re.compile(r"[ -~]*")
_LONGEST_PATH: Final = 400
_MOST_CUSTOM: Final = 16


class Operation(Struct, frozen=True):
    """``publish``: the target at ``path`` is the content with this length and hash.

    ``bump``: sign anew what expires soon, or everything if ``everything``.
    """

    id: str
    kind: Kind = "publish"
    path: str = ""
    length: int = 0
    sha256: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False

    @classmethod
    def parse(cls, raw: bytes) -> Operation:
        """Read an operation.

        Raises ``NewerOperation`` for one we must leave to others, and
        ``OperationRefused`` for one that is no good.
        """
        try:
            document: Any = json.loads(raw)
            if document["format"] != FORMAT:
                raise NewerOperation(f"operation format {document['format']!r}")
            found = cls(
                id=document["id"],
                kind=document["kind"],
                path=document.get("path", ""),
                length=document.get("length", 0),
                sha256=document.get("sha256", ""),
                custom=document.get("custom", {}),
                everything=document.get("everything", False),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
            raise OperationRefused(f"not an operation: {type(cause).__name__}: {cause}") from cause
        return found.checked()

    def checked(self) -> Operation:
        """The operation itself. Raises ``OperationRefused`` if it must not be applied."""
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise OperationRefused(f"{self.id!r} is no operation id")
        if self.kind not in _KINDS:
            raise OperationRefused(f"{self.id}: unknown kind of operation {self.kind!r}")
        if type(self.everything) is not bool:
            raise OperationRefused(f"{self.id}: {self.everything!r} is neither true nor false")
        if self.kind == "bump":
            return self
        if not isinstance(self.path, str) or not (
            _PATH.fullmatch(self.path) and len(self.path) <= _LONGEST_PATH
        ):
            raise OperationRefused(f"{self.id}: {self.path!r} cannot be the path of a target")
        if not isinstance(self.sha256, str) or not _HASH.fullmatch(self.sha256):
            raise OperationRefused(f"{self.id}: {self.sha256!r} is no SHA-256")
        if type(self.length) is not int or self.length < 0:
            raise OperationRefused(f"{self.id}: {self.length!r} is no length")
        if not isinstance(self.custom, dict) or not (
            len(self.custom) <= _MOST_CUSTOM
            and all(
                isinstance(text, str) and len(text) <= _LONGEST_PATH and _TEXT.fullmatch(text)
                for pair in self.custom.items()
                for text in pair
            )
        ):
            raise OperationRefused(f"{self.id}: custom fields are short printable texts")
        return self

    def render(self) -> bytes:
        """The file."""
        document: dict[str, Any] = {"format": FORMAT, "id": self.id, "kind": self.kind}
        if self.kind == "bump":
            document["everything"] = self.everything
        else:
            document |= {
                "path": self.path,
                "length": self.length,
                "sha256": self.sha256,
                "custom": dict(self.custom),
            }
        return json.dumps(document).encode()

    @property
    def dropped(self) -> float:
        """When it was made, in seconds, by the clock of its publisher."""
        return dropped(self.id)


class NewerOperation(Exception):
    """Made by a later version; it stays queued until such a version commits."""


class Numbering:
    """The ids of one publisher, in rising order."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.publisher = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._clock = clock

    def next(self) -> str:
        """An id that nobody has."""
        nanoseconds = max(0, int(self._clock() * 1_000_000_000))
        return f"{nanoseconds:020d}-{self.publisher}-{next(self._numbers):010d}"

    def named(self, operation: Operation) -> Operation:
        """The operation with an id, its own if it has one."""
        return operation if operation.id else replace(operation, id=self.next())


def dropped(operation_id: str) -> float:
    """When an operation was made, in seconds, by the clock of its publisher."""
    return int(operation_id[:20]) / 1_000_000_000


def is_id(text: str) -> bool:
    """Whether this is the id of an operation."""
    return _ID.fullmatch(text) is not None


def in_arrival_order(arrived: Iterable[tuple[str, int]]) -> list[str]:
    """Operation ids with their time of arrival, in the order in which they apply.

    The time is the file system's. It may be coarse or step back; that never
    turns the operations of one publisher round.
    """
    by_publisher: dict[str, list[tuple[int, int, str]]] = {}
    for operation_id, moment in arrived:
        match = _ID.fullmatch(operation_id)
        assert match is not None
        by_publisher.setdefault(match["publisher"], []).append(
            (int(match["number"]), moment, operation_id)
        )
    ordered: list[tuple[int, str, int, str]] = []
    for publisher, items in by_publisher.items():
        latest = 0
        for number, moment, operation_id in sorted(items):
            latest = max(latest, moment)
            ordered.append((latest, publisher, number, operation_id))
    return [operation_id for *_, operation_id in sorted(ordered)]
