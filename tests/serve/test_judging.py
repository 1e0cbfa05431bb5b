"""The service behind ``validate input --server`` where evaluations take long or fail."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import EngineError
from conforma.policy.presentation import Findings
from conforma.serve.departures import Departures
from conforma.serve.faults import Gate
from conforma.serve.httpd import Incoming, RequestBody, Response
from conforma.serve.judging import PATH, Judging
from conforma.serve.server import Server
from conforma.validate.input_files import Document
from conforma.validate.input_result import InputReport, InputResult

BODY = b'{"spam": true}'


def asked() -> Incoming:
    headers = {"content-length": str(len(BODY)), "content-type": "application/json"}
    body = RequestBody(io.BytesIO(BODY), headers)
    return Incoming("POST", PATH, {}, headers, body, PATH, "HTTP/1.1", "127.0.0.1:1")


def told(response: Response) -> tuple[int, str]:
    document = json.loads(response.body.read(0, response.body.size))
    return response.status, document["error"]


def report(documents: Sequence[Document], _: Cancellation) -> InputReport:
    assert [document.raw for document in documents] == [b'{"spam":true}']
    result = InputResult("input", Findings.of([], info=False))
    return InputReport(
        (result,), policy={}, version="v", effective_time="", created=datetime.now(UTC)
    )


def test_an_evaluation_that_takes_too_long_is_given_up() -> None:
    def slow(_: Sequence[Document], cancellation: Cancellation) -> InputReport:
        cancellation.wait(60)
        raise AssertionError("it was to stop")

    judging = Judging(seconds=0.05)
    judging.begin(slow)
    assert told(judging(asked())) == (500, "evaluation timed out")


def test_whoever_finds_no_place_in_time_may_come_again() -> None:
    gate = Gate()

    def held(documents: Sequence[Document], cancellation: Cancellation) -> InputReport:
        gate.stop_here()
        return report(documents, cancellation)

    judging = Judging(seconds=0.05, at_once=1)
    judging.begin(held)
    answers: list[Response] = []
    first = threading.Thread(target=lambda: answers.append(judging(asked())))
    first.start()
    gate.wait_reached()
    refused = judging(asked())
    assert told(refused) == (503, "too many requests at the same time")
    assert refused.headers["Retry-After"] == "1"
    gate.release()
    first.join()
    assert answers[0].status == 200, "it had begun in time"
    assert judging(asked()).status == 200, "the place is free again"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, (400, "failed to read request body")),
        (408, (400, "failed to read request body")),
        (413, (413, "request body exceeds 80MB limit")),
        (503, (503, "too many large requests at the same time")),
    ],
)
def test_a_body_that_did_not_come_is_told_by_its_reason(
    status: int, answer: tuple[int, str]
) -> None:
    refused = Judging().refused(status, asked())
    assert told(refused) == answer
    assert ("Retry-After" in refused.headers) == (status == 503)
    assert told(Judging().refused(431, None))[0] == 431


@pytest.mark.parametrize(
    ("error", "message", "logged"),
    [
        (EngineError("the engine died", hint="more memory"), "evaluation failed", "engine died"),
        (MemoryError(), "evaluation failed", "out of memory"),
        (KeyError("a bug"), "internal server error", "a bug"),
    ],
)
def test_what_went_wrong_inside_stands_in_the_log(
    error: Exception,
    message: str,
    logged: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(_: Sequence[Document], __: Cancellation) -> InputReport:
        raise error

    monkeypatch.setattr(logging.getLogger("conforma"), "propagate", True)
    judging = Judging()
    judging.begin(failing)
    with caplog.at_level(logging.INFO, logger="conforma"):
        assert told(judging(asked())) == (500, message)
        judging.begin(report)
        assert judging(asked()).status == 200
    first = caplog.records[0]
    assert logged in f"{first.fields.get('error')} {first.exc_info}"  # type: ignore[attr-defined]


def test_an_evaluation_ends_when_its_client_goes_and_leaves_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "conforma.serve.judging")
    begun, ended = threading.Event(), threading.Event()

    def until_told(documents: Sequence[Document], cancellation: Cancellation) -> InputReport:
        if ended.is_set():
            return report(documents, cancellation)
        begun.set()
        try:
            cancellation.wait(60)
        finally:
            ended.set()
        raise AssertionError("it was to stop")

    judging = Judging(seconds=60, at_once=1)
    judging.begin(until_told)
    server = Server(judging)
    try:
        with socket.create_connection(server.address) as client:
            client.sendall(request())
            assert begun.wait(20)
        assert ended.wait(20), "nobody noticed that the client had gone"
        with socket.create_connection(server.address) as client:
            client.sendall(request())
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    finally:
        server.close()
    assert "Client gone, evaluation stopped" in caplog.messages


def test_a_client_that_waits_or_sends_its_next_request_has_not_gone() -> None:
    looked = threading.Semaphore(0)

    def later(documents: Sequence[Document], cancellation: Cancellation) -> InputReport:
        for _ in range(3):  # the thread that looks was there, and found nothing
            assert looked.acquire(timeout=20)
        cancellation.raise_if_cancelled()
        return report(documents, cancellation)

    class Looking(Departures):
        def __init__(self) -> None:
            super().__init__(every=0.01)

        def look(self) -> list[Callable[[], None]]:
            gone = super().look()
            looked.release()
            return gone

    judging = Judging(seconds=60)
    judging.begin(later)
    server = Server(judging, departures=Looking())
    try:
        with socket.create_connection(server.address) as client:
            client.sendall(request() + request())
            lines = client.makefile("rb")
            assert lines.readline() == b"HTTP/1.1 200 OK\r\n"
    finally:
        server.close()


def request() -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
