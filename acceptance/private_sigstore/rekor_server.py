"""The interface of Rekor v1, search and upload, on a loopback port, for the log of ``rekor``.

As the real log it recomputes the entry that a proposal stands for and answers
with those of equal content. ``faults`` are answers given instead, in turn.
"""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from acceptance.private_sigstore import rekor
from acceptance.private_sigstore.rekor import Rekor

UPLOAD = "/api/v1/log/entries"
RETRIEVE = f"{UPLOAD}/retrieve"


@dataclass(frozen=True)
class Fault:
    """An answer that the log would not give by itself."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class RekorServer:
    """Answers searches in ``log``; ``queries`` are the documents it was asked with."""

    def __init__(self, log: Rekor) -> None:
        self.log = log
        self.queries: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.alter: Any = lambda uuid, document: (uuid, document)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                fault = owner.answer(self.path, content)
                self.send_response(fault.status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(fault.body)))
                self.end_headers()
                self.wfile.write(fault.body)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the log is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> RekorServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, content: bytes) -> Fault:
        """What is answered to one request."""
        self.queries.append(json.loads(content))
        if self.faults:
            return self.faults.pop(0)
        if path == UPLOAD:
            return self._added(self.queries[-1])
        if path != RETRIEVE:
            return Fault(404, b'{"code":404,"message":"path not found"}')
        bodies = [body for proposal in self.queries[-1]["entries"] for body in recomputed(proposal)]
        found = [entry for entry in self.log.entries if json.loads(entry.body) in bodies]
        documents = (self.alter(entry.uuid, entry.retrieved()) for entry in found)
        return Fault(200, json.dumps([{uuid: document} for uuid, document in documents]).encode())

    def _added(self, proposal: dict[str, Any]) -> Fault:
        (body,) = recomputed(proposal)
        entry = self.log.add(body)
        headers = {"Location": f"{UPLOAD}/{entry.uuid}", "ETag": entry.uuid}
        return Fault(201, json.dumps({entry.uuid: entry.retrieved()}).encode(), headers)


def recomputed(proposal: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The bodies that Rekor would make of a proposal."""
    spec = proposal["spec"]
    if proposal["kind"] == "hashedrekord":
        yield proposal
        return
    proposed = spec["proposedContent"] if proposal["kind"] == "dsse" else spec["content"]
    text = proposed["envelope"].encode()
    key = spec["publicKey"] if proposal["kind"] == "intoto" else proposed["verifiers"][0]
    envelope, pem = json.loads(text), b64decode(key).decode()
    payload = b64decode(envelope["payload"])
    if proposal["kind"] == "intoto":
        yield rekor.intoto_1(text, payload, pem)
        return
    for signature in envelope["signatures"]:
        yield rekor.dsse(text, payload, b64decode(signature["sig"]), pem)
