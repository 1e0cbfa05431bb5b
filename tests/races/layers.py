"""The layers that the explorer plays with, and upstreams for them that do what they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conforma.errors import RegistryUnreachable
from conforma.oci.digest import DiffID
from conforma.oci.manifest import Descriptor
from conforma.serve.images import Layer, Member, layer_of, random_member
from tests.cache.upstream import PATIENCE

PIECE: Final = 16 * 1024
FILE: Final = "etc/name"


@dataclass(frozen=True)
class Known:
    """What is true of one layer: the model's side of every comparison."""

    layer: Layer
    plain: bytes
    file: bytes
    """The content of :data:`FILE` in it."""

    @property
    def blob(self) -> bytes:
        return self.layer.blob

    @property
    def descriptor(self) -> Descriptor:
        return self.layer.descriptor

    @property
    def diff_id(self) -> DiffID:
        return self.layer.diff_id

    def expected(self, view: str) -> bytes:
        return {"uncompressed": self.plain, "contents": self.file}.get(view, self.blob)


def known(seed: object, size: int, compression: Any = "gzip", level: int = 1) -> Known:
    file = f"this is {seed}".encode()
    members = [Member(FILE, file), random_member("usr/lib/program", size, seed)]
    plain = layer_of(members, compression="none").blob
    return Known(layer_of(members, compression=compression, level=level), plain, file)


LAYERS: Final = (
    known("tiny", 2_000),  # less than what is held back from followers
    known("small", 90_000),
    known("large", 1_200_000),  # its leftovers are worth resuming
    known("twin", 150_000),
    known("twin", 150_000, level=9),  # another digest of the same plain tar
    known("plain", 60_000, compression="none"),  # its digest is its DiffID
)


class Upstream:
    """Serves one layer once or more, stops at a gate on the way, and ends as ``fate`` says.

    ``gate`` and the end of a download that breaks are given as parts of the
    blob. ``moved`` is set when the gate is reached.
    """

    FATES: Final[dict[str, frozenset[str]]] = {
        "honest": frozenset(),
        "breaks": frozenset({"RegistryUnreachable"}),
        "short": frozenset({"SizeMismatch"}),
        "long": frozenset({"SizeMismatch"}),
        "wrong end": frozenset({"DigestMismatch"}),
        "wrong middle": frozenset({"DigestMismatch", "Diverged"}),
    }
    """What can become of a download, and the errors that may be told of it."""

    def __init__(
        self,
        what: Known,
        fate: str,
        gate: float | None,
        asked: Callable[[int], None],
        moved: threading.Event,
    ) -> None:
        self.fate = fate
        self._content = _spoiled(what.blob, fate)
        self._breaks_at = len(what.blob) * 9 // 10 if fate == "breaks" else None
        self.gate_at = None if gate is None else int(len(what.blob) * gate) // PIECE * PIECE
        self._asked = asked
        self._moved = moved
        self._open = threading.Event()
        self.reached: int | None = None
        """Where it stood, or stands: at the gate, or further on, where a download was resumed."""
        self._idle = threading.Event()
        self._idle.set()

    def release(self) -> None:
        self._open.set()

    @property
    def is_held(self) -> bool:
        """Whether somebody who downloads from here may have to wait for us."""
        return self.gate_at is not None and not self._open.is_set()

    def wait_idle(self, seconds: float) -> bool:
        return self._idle.wait(seconds)

    @contextmanager
    def fetch(self, offset: int) -> Iterator[Iterator[bytes]]:
        self._asked(offset)
        self._idle.clear()
        try:
            yield self._pieces(offset)
        finally:
            self._idle.set()

    def _pieces(self, offset: int) -> Iterator[bytes]:
        while True:
            if self.gate_at is not None and offset >= self.gate_at and not self._open.is_set():
                self.reached = offset
                self._moved.set()
                assert self._open.wait(6 * PATIENCE), "nobody opened the gate"
            if self._breaks_at is not None and offset >= self._breaks_at:
                raise RegistryUnreachable("registry.test/app: went away")
            if offset >= len(self._content):
                return
            yield self._content[offset : offset + PIECE]
            offset += PIECE


def fetching(task: dict[str, Any]) -> Any:
    """An honest fetch in another process, which notes each request in a common log."""

    def asked(offset: int) -> None:
        note_request(Path(task["log"]), task["layer"], offset)

    return Upstream(LAYERS[task["layer"]], "honest", None, asked, threading.Event()).fetch


def note_request(log: Path, number: int, offset: int) -> None:
    with log.open("a") as file:  # O_APPEND: one write, one line
        file.write(f"{number} {offset}\n")


def _spoiled(blob: bytes, fate: str) -> bytes:
    if fate == "short":
        return blob[:-1]
    if fate == "long":
        return blob + b"!"
    at = {"wrong end": len(blob) - 5, "wrong middle": len(blob) // 2}.get(fate)
    if at is None:
        return blob
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
