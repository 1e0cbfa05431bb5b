"""The interface of Rekor v1, search and upload, on a loopback port, for the log of ``rekor``.

As the real log it recomputes the entry that a proposal stands for and answers
with those of equal content. ``faults`` are answers given instead, in turn.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

from acceptance.private_sigstore import rekor
from acceptance.private_sigstore.rekor import Rekor
from acceptance.private_sigstore.service import Answer, AnsweringService

UPLOAD = "/api/v1/log/entries"
RETRIEVE = f"{UPLOAD}/retrieve"


class RekorServer(AnsweringService):
    """Answers searches in ``log``; ``queries`` are the documents it was asked with."""

    def __init__(self, log: Rekor) -> None:
        self.log = log
        self.queries: list[dict[str, Any]] = []
        self.faults: list[Answer] = []
        self.alter: Any = lambda uuid, document: (uuid, document)
        super().__init__()

    def answer(self, path: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """What is answered to one request."""
        self.queries.append(json.loads(content))
        if self.faults:
            return self.faults.pop(0)
        if path == UPLOAD:
            return self._added(self.queries[-1])
        if path != RETRIEVE:
            return Answer(404, b'{"code":404,"message":"path not found"}')
        bodies = [body for proposal in self.queries[-1]["entries"] for body in recomputed(proposal)]
        found = [entry for entry in self.log.entries if json.loads(entry.body) in bodies]
        documents = (self.alter(entry.uuid, entry.retrieved()) for entry in found)
        return Answer(200, json.dumps([{uuid: document} for uuid, document in documents]).encode())

    def _added(self, proposal: dict[str, Any]) -> Answer:
        (body,) = recomputed(proposal)
        entry = self.log.add(body)
        headers = {"Location": f"{UPLOAD}/{entry.uuid}", "ETag": entry.uuid}
        return Answer(201, json.dumps({entry.uuid: entry.retrieved()}).encode(), headers)


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
