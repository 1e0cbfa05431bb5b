"""The push half of the distribution protocol: upload sessions and their blobs."""

from __future__ import annotations

import re
import secrets
import threading

from msgspec import Struct

from conforma.errors import BadDigest
from conforma.oci.digest import Digest
from conforma.serve.httpd import Incoming, Response
from conforma.serve.store import Sink, Store


class Upload(Struct):
    """One upload session."""

    repository: str
    sink: Sink


def failure(status: int, code: str, message: str) -> Response:
    """An error answer in the form of the distribution specification."""
    return Response.document(
        status, {"errors": [{"code": code, "message": message, "detail": None}]}
    )


class Uploads:
    """All upload sessions of a server.

    With ``exclusive``, two uploads of one digest at a time are refused with
    409, as some registries do.
    """

    def __init__(self, store: Store, *, exclusive: bool = False, mounts: bool = True) -> None:
        self._store = store
        self._exclusive = exclusive
        self._mounts = mounts
        self._lock = threading.Lock()
        self._sessions: dict[str, Upload] = {}
        self._receiving: set[Digest] = set()

    def start(self, repository: str, incoming: Incoming) -> Response:
        """POST: mount a blob, take a whole one, or open a session."""
        query = incoming.query
        try:
            if "mount" in query and self._mount(repository, query["mount"], query.get("from")):
                return self._created(repository, Digest.parse(query["mount"]))
            if "digest" in query:
                digest = Digest.parse(query["digest"])
                upload = Upload(repository, self._store.sink())
                try:
                    return self._finish(upload, digest, incoming)
                finally:
                    upload.sink.drop()
        except BadDigest as error:
            return failure(400, "DIGEST_INVALID", str(error))
        session = secrets.token_hex(16)
        with self._lock:
            self._sessions[session] = Upload(repository, self._store.sink())
        return self._accepted(repository, session, 0)

    def proceed(self, repository: str, session: str, incoming: Incoming) -> Response:
        """PATCH, PUT, GET and DELETE of a session."""
        with self._lock:
            upload = self._sessions.get(session)
        if upload is None or upload.repository != repository:
            return failure(404, "BLOB_UPLOAD_UNKNOWN", "no such upload session")
        if incoming.method == "GET":
            return self._status(repository, session, upload)
        if incoming.method == "DELETE":
            self._end(session)
            upload.sink.drop()
            return Response(204)
        if not _continues(incoming.headers.get("content-range"), upload.sink.size):
            answer = failure(416, "BLOB_UPLOAD_INVALID", "chunk out of order")
            answer.headers.update(self._status(repository, session, upload).headers)
            return answer
        if incoming.method == "PATCH":
            for piece in incoming.body:
                upload.sink.write(piece)
            return self._accepted(repository, session, upload.sink.size)
        try:
            digest = Digest.parse(incoming.query.get("digest", ""))
        except BadDigest as error:
            return failure(400, "DIGEST_INVALID", str(error))
        answer = self._finish(upload, digest, incoming)
        if answer.status != 409:
            self._end(session)
        return answer

    def _finish(self, upload: Upload, digest: Digest, incoming: Incoming) -> Response:
        with self._lock:
            if self._exclusive and digest in self._receiving:
                return failure(409, "BLOB_UPLOAD_INVALID", f"{digest} is being uploaded already")
            self._receiving.add(digest)
        try:
            for piece in incoming.body:
                upload.sink.write(piece)
            if not upload.sink.matches(digest):
                upload.sink.drop()
                return failure(400, "DIGEST_INVALID", "the content has another digest")
            upload.sink.keep(digest)
            self._store.repository(upload.repository).link_blob(digest)
            return self._created(upload.repository, digest)
        finally:
            with self._lock:
                self._receiving.discard(digest)

    def _mount(self, repository: str, text: str, source: str | None) -> bool:
        digest = Digest.parse(text)
        if not self._mounts or source is None:
            return False
        known = self._store.existing(source)
        if known is None or not known.has_blob(digest):
            return False
        self._store.repository(repository).link_blob(digest)
        return True

    def _end(self, session: str) -> None:
        with self._lock:
            self._sessions.pop(session, None)

    def _accepted(self, repository: str, session: str, size: int) -> Response:
        headers = {
            "Location": f"/v2/{repository}/blobs/uploads/{session}",
            "Range": f"0-{max(size - 1, 0)}",
            "Docker-Upload-UUID": session,
        }
        return Response(202, headers)

    def _status(self, repository: str, session: str, upload: Upload) -> Response:
        answer = self._accepted(repository, session, upload.sink.size)
        answer.status = 204
        return answer

    @staticmethod
    def _created(repository: str, digest: Digest) -> Response:
        headers = {
            "Location": f"/v2/{repository}/blobs/{digest}",
            "Docker-Content-Digest": str(digest),
        }
        return Response(201, headers)


def _continues(content_range: str | None, size: int) -> bool:
    if content_range is None:
        return True
    match = re.fullmatch(r"(?:bytes[ =])?(\d+)-(\d+)(?:/.*)?", content_range)
    return match is not None and int(match[1]) == size
