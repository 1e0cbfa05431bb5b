"""The HTTP service of ``validate input --server``: documents come in, reports go out.

Paths, bodies, messages and status codes are the contract of commands.md 7. An
answer says what is wrong with a request; what is wrong with the policy or its
surroundings is for whoever runs the service, in the log. Neither shows what a
document holds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from conforma import gojson
from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, DeadlineExceeded, InputError, Interrupted
from conforma.report import input_report
from conforma.report.formats import Options
from conforma.report.wrapping import harmless_line, shortened
from conforma.serve.bodies import MemoryBody
from conforma.serve.httpd import Incoming, Response
from conforma.serve.limits import Limits
from conforma.validate.exhaustion import explained
from conforma.validate.input_files import Document, in_request
from conforma.validate.input_result import InputReport

log = logging.getLogger(__name__)

Judge = Callable[[Sequence[Document], Cancellation], InputReport]

PATH: Final = "/v1/validate/input"
MEBIBYTE: Final = 1 << 20
LARGEST_BODY: Final = 80 * MEBIBYTE
LIMITS: Final = Limits(
    idle=60.0,
    head=10.0,
    body=30.0,
    largest_body=LARGEST_BODY,
    # Four of the largest at a time; read as JSON each of them takes several times as much.
    bodies=4 * LARGEST_BODY,
    stalled=120.0,
    answer=120.0,
    grace=95.0,
)
EVALUATION_SECONDS: Final = 90.0

_METHODS: Final = {"/live": "GET", "/ready": "GET", PATH: "POST"}
_READ_ERRORS: Final = {
    400: (400, "failed to read request body"),
    408: (400, "failed to read request body"),
    413: (413, f"request body exceeds {LARGEST_BODY // MEBIBYTE}MB limit"),
    503: (503, "too many large requests at the same time"),
}
_NOBODY: Final = 499
"""For the log: nobody is there to read an answer. What nginx writes in its own then."""
_UNPARSABLE: Final = "request body is not valid JSON or YAML"
_LONGEST_REASON: Final = 300


class Judging:
    """Answers requests, from many threads. Until :meth:`begin` it is alive, but not ready."""

    def __init__(self, *, seconds: float = EVALUATION_SECONDS, at_once: int | None = None) -> None:
        """``seconds`` an evaluation may take, waiting for one of ``at_once`` places included."""
        self._seconds = seconds
        # Rules may wait for registries, so that more than one per processor can be under way.
        self._places = threading.BoundedSemaphore(at_once or max(8, 4 * (os.cpu_count() or 1)))
        self._judge: Judge | None = None

    def begin(self, judge: Judge) -> None:
        """Be ready from now on."""
        self._judge = judge

    def __call__(self, incoming: Incoming) -> Response:
        """The answer to one request."""
        return self._logged(incoming, lambda about: self._answer(incoming, about))

    def refused(self, status: int, incoming: Incoming | None) -> Response:
        """The answer to a request whose body did not come, or that was no request at all."""
        if incoming is None:
            return _failure(status, "the request is not HTTP/1.1, or its head is too large")
        told, message = _READ_ERRORS.get(status, _READ_ERRORS[400])
        later = {"Retry-After": "1"} if told == 503 else {}
        return self._logged(incoming, lambda _: _failure(told, message, later))

    def _logged(
        self, incoming: Incoming, answer: Callable[[Mapping[str, Any]], Response]
    ) -> Response:
        about = {
            "request_id": str(uuid.uuid4()),
            "method": incoming.method,
            "path": incoming.path,
            "remote": incoming.client,
        }
        started = time.monotonic()
        response = answer(about)
        taken = f"{(time.monotonic() - started) * 1000:.3f}ms"
        size = incoming.headers.get("content-length", "-1")
        ended = {"status": response.status, "latency": taken, "size": int(size)}
        log.info("Request completed", extra={"fields": about | ended})
        return response

    def _answer(self, incoming: Incoming, about: Mapping[str, Any]) -> Response:
        wanted = _METHODS.get(incoming.path)
        if wanted is None:
            return _failure(404, f"there is nothing here; documents go to {PATH}")
        if incoming.method not in (wanted, "HEAD" if wanted == "GET" else wanted):
            allowed = "GET, HEAD" if wanted == "GET" else wanted
            return _failure(405, f"{incoming.path} is for {wanted} only", {"Allow": allowed})
        if incoming.path == "/live":
            return _status(200, "ok")
        ready = self._judge is not None
        if incoming.path == "/ready":
            return _status(200, "ready") if ready else _status(503, "not ready")
        if self._judge is None:
            return _failure(503, "not ready, policy sources are being loaded", {"Retry-After": "1"})
        return self._validate(incoming, self._judge, about)

    def _validate(self, incoming: Incoming, judge: Judge, about: Mapping[str, Any]) -> Response:
        until = Cancellation(self._seconds)
        if not self._places.acquire(timeout=self._seconds):
            until.close()
            return _failure(503, "too many requests at the same time", {"Retry-After": "1"})
        try:
            return _judged(incoming, judge, until)
        except DeadlineExceeded:
            return _evaluation_failed("evaluation timed out", about)
        except Interrupted:
            log.info("Client gone, evaluation stopped", extra={"fields": about})
            return Response(_NOBODY, close=True)
        except ConformaError as error:
            return _evaluation_failed("evaluation failed", about, error)
        except Exception as cause:
            if (shortage := explained(cause)) is not None:
                return _evaluation_failed("evaluation failed", about, shortage)
            log.exception("Recovered from a bug", extra={"fields": about})
            return _failure(500, "internal server error")
        finally:
            self._places.release()
            until.close()


def _judged(incoming: Incoming, judge: Judge, until: Cancellation) -> Response:
    body = incoming.body.read(LARGEST_BODY)
    if not body:
        return _failure(400, "request body is empty")
    media_type = incoming.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        documents = in_request(body, media_type)
    except InputError as error:
        # The message is what clients compare; which line is wrong stands beside it.
        reason = shortened(error.message, _LONGEST_REASON).encode("ascii", "backslashreplace")
        return _failure(400, _UNPARSABLE, {"X-Conforma-Reason": harmless_line(reason.decode())})
    with incoming.watch(until.cancel):
        report = judge(documents, until)
    answer = _document(200, "".join(input_report.render(report, "json", Options())))
    answer.headers["X-Conforma-Result"] = "pass" if report.success else "fail"
    return answer


def _evaluation_failed(
    message: str, about: Mapping[str, Any], error: ConformaError | None = None
) -> Response:
    fields = dict(about)
    if error is not None:
        fields["error"] = error.message
        if error.hint:
            fields["hint"] = error.hint
    log.error("%s", message.capitalize(), extra={"fields": fields})
    return _failure(500, message)


def _status(status: int, said: str) -> Response:
    return _document(status, gojson.dumps({"status": said}))


def _failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    answer = _document(status, gojson.dumps({"error": message, "status": status}) + "\n")
    answer.headers.update(headers or {})
    return answer


def _document(status: int, text: str) -> Response:
    return Response(status, {"Content-Type": "application/json"}, MemoryBody(text.encode()))
