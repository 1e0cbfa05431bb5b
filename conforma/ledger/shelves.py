"""Where summaries are kept: a directory of files, a ledger. What ``--vsa-upload`` names.

Grammar: ``backend@target?parameter=value`` (commands.md 9.4).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from msgspec import Struct

from conforma.errors import BadEvidence, ConformaError, InputError, LedgerError
from conforma.ledger.statement import Summary, path_of
from conforma.oci.digest import Digest

log = logging.getLogger(__name__)

BACKENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "rekor": ("server", "url", "timeout", "retries"),
    "local": ("path", "dir", "directory"),
    "ledger": ("path", "dir", "directory", "key", "root", "timeout"),
}
_PUBLIC_LOG: Final = "https://rekor.sigstore.dev"
_LARGEST: Final = 16 << 20
_SECONDS: Final = 60.0
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Backend(Struct, frozen=True):
    """One value of ``--vsa-upload``."""

    kind: str
    target: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Backend:
        """Read a value of the flag. Raises ``InputError``; unknown parameters only warn."""
        head, _, query = text.partition("?")
        word, _, target = head.partition("@")
        kind = word.lower()
        if kind not in BACKENDS:
            raise InputError(
                f"invalid storage config '{text}': unsupported backend '{word}'. "
                "Supported backends: rekor, local",  # output contract, older than ledgers
                hint="a ledger is written ledger@DIRECTORY",
            )
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        for name in parameters:
            if name not in BACKENDS[kind]:
                log.warning("--vsa-upload: %s has no parameter %s", kind, name)
        backend = cls(kind, "", parameters)
        try:
            backend.seconds(_SECONDS)
            backend.retries(0)
        except ValueError as cause:
            raise InputError(f"invalid storage config '{text}': {cause}") from cause
        aliases = ("server", "url") if kind == "rekor" else ("path", "dir", "directory")
        target = target or next((parameters[a] for a in aliases if parameters.get(a)), "")
        if not target and kind == "ledger":
            raise InputError(
                f"invalid storage config '{text}': the directory of the ledger is missing",
                hint="write it as ledger@DIRECTORY",
            )
        return cls(kind, target or {"rekor": _PUBLIC_LOG}.get(kind, "./vsa-upload"), parameters)

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.kind}@{self.target}"

    def seconds(self, default: float) -> float:
        """The ``timeout`` parameter, such as ``30s``. Raises ``ValueError``."""
        text = self.parameters.get("timeout", "")
        if not text:
            return default
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f"timeout: {text!r} is not a duration such as 30s")
        return float(match[1]) * _UNITS[match[2] or "s"]

    def retries(self, default: int) -> int:
        """The ``retries`` parameter. Raises ``ValueError``."""
        text = self.parameters.get("retries", "")
        if text and not re.fullmatch("[0-9]{1,3}", text):
            raise ValueError(f"retries: {text!r} is not a number")
        return int(text) if text else default


class LocalShelf:
    """Envelopes in a directory, one file each."""

    keeps = "envelope"

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self._directory = Path(backend.target)
        self._lock = threading.Lock()
        self._by_digest: dict[Digest, list[bytes]] | None = None

    def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:  # noqa: ARG002 - of all policies
        """All envelopes about the image. Raises ``LedgerError``."""
        with self._lock:
            if self._by_digest is None:
                self._by_digest = self._read()
            return self._by_digest.get(digest, ())

    def upload(self, envelopes: Sequence[bytes]) -> None:
        """Write the envelopes, each to a file of its own (0600). Raises ``LedgerError``."""
        for content in envelopes:
            moment = datetime.now().astimezone()
            short = hashlib.sha256(content).hexdigest()[:16]
            name = f"vsa-{moment:%Y-%m-%dT%H-%M-%S.%f}000-{short}.json"
            try:
                self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                aside = self._directory / f".{name}.{os.getpid()}"
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, for its mode
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                aside.rename(self._directory / name)
            except OSError as cause:
                raise LedgerError(f"{self._directory / name}: {cause.strerror}") from cause

    def _read(self) -> dict[Digest, list[bytes]]:
        found: dict[Digest, list[bytes]] = {}
        try:
            files = sorted(self._directory.glob("*.json")) if self._directory.is_dir() else []
            for file in files:
                if file.stat().st_size > _LARGEST:
                    continue
                content = file.read_bytes()
                try:
                    found.setdefault(Summary.parse(content).digest, []).append(content)
                except BadEvidence as error:
                    log.debug("%s: %s", file, error.message)
        except OSError as cause:
            raise LedgerError(f"{self._directory}: {cause.strerror}") from cause
        return found


class LedgerShelf:
    """Summaries in a ledger, read through a TUF client and written by a publisher."""

    keeps = "summary"

    def __init__(self, backend: Backend, stack: ExitStack) -> None:
        self.name = backend.name
        self._backend = backend
        self._stack = stack
        self._lock = threading.Lock()
        self._reader: object = None

    def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:
        """The summary for this very policy, if there is one. Raises ``LedgerError``."""
        from conforma.ledger.reader import Reader, memory_of, trusted_root

        with self._lock:
            if self._reader is None:
                root = trusted_root(self._backend.target, self._backend.parameters.get("root", ""))
                self._reader = self._stack.enter_context(
                    Reader(self._backend.target, root, memory_of(self._backend.target, root))
                )
        assert isinstance(self._reader, Reader)
        found = self._reader.find(path_of(digest, policy))
        return [found.content] if found is not None else []

    def upload(self, envelopes: Sequence[bytes]) -> None:
        """Publish the envelopes; they are durable afterwards.

        Raises the first ``ConformaError``, after all were tried.
        """
        from conforma.ledger import keys
        from conforma.ledger.ledger import Ledger
        from conforma.ledger.publisher import Publisher, Ticket

        parameters = self._backend.parameters
        seconds = self._backend.seconds(_SECONDS)
        errors: list[ConformaError] = []
        with Ledger(Path(self._backend.target)) as ledger:
            spec = parameters.get("key", "") or os.environ.get(keys.KEY, "")
            signer = keys.online(spec, ledger.state.root)
            publisher = Publisher(ledger, signer)
            try:
                tickets: list[Ticket] = []
                for content in envelopes:
                    try:
                        summary = Summary.parse(content)
                        tickets.append(publisher.publish(summary.path, content, about(summary)))
                    except ConformaError as error:
                        errors.append(error)
                for ticket in tickets:
                    try:
                        ticket.result(seconds)
                    except ConformaError as error:
                        errors.append(error)
            finally:
                publisher.close(wait=False)
        if errors:
            raise errors[0]


class NoShelf:
    """Stands for a place that cannot be used: every envelope that would go there is a warning."""

    name = "nowhere"
    keeps = "envelope"

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def upload(self, envelopes: Sequence[bytes]) -> None:
        """Keep nothing."""
        for _ in envelopes:
            log.warning("%s", self._reason)


def about(summary: Summary) -> dict[str, str]:
    """What the metadata says about a summary: enough to list it without fetching it."""
    moment = summary.moment
    return {
        "status": str(summary.predicate.get("status", "")),
        "time": f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment is not None else "",
    }
