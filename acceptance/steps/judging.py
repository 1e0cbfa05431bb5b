"""A service that judges documents over HTTP, and what it is asked."""

from __future__ import annotations

import http.client
import json
import signal
from dataclasses import dataclass
from typing import Any

from pytest_bdd import given, parsers, then, when

from acceptance.world import World


@dataclass(frozen=True)
class Reply:
    """What the service answered."""

    status: int
    result: str | None
    document: Any


@given("a service that judges documents", target_fixture="service")
def start_service(world: World) -> str:
    policy = f"--policy={world.write_policy()}"
    process = world.start("validate", "input", "--server", "--server-port=0", policy)
    assert process.stderr is not None
    for line in process.stderr:
        message = json.loads(line)["msg"]
        if message.startswith("Server listening on "):
            return str(message.split()[-1])
    raise AssertionError("it ended before it was ready")


@when(parsers.parse('the service is sent as "{media_type}":'), target_fixture="reply")
def send(service: str, media_type: str, docstring: str) -> Reply:
    connection = http.client.HTTPConnection(service, timeout=60)
    try:
        headers = {"Content-Type": media_type}
        connection.request("POST", "/v1/validate/input", docstring.encode(), headers)
        answer = connection.getresponse()
        result = answer.getheader("X-Conforma-Result")
        return Reply(answer.status, result, json.loads(answer.read()))
    finally:
        connection.close()


@when("the service is told to stop")
def stop_service(world: World, service: str) -> None:
    (process,) = world.running
    process.send_signal(signal.SIGTERM)
    world.finish(process, world.new_report())


@then(parsers.parse('the service answers with {status:d} and "{result}"'))
def verdict(reply: Reply, status: int, result: str) -> None:
    assert (reply.status, reply.result) == (status, result)


@then(parsers.parse("the service answers with {status:d}"))
def refusal(reply: Reply, status: int) -> None:
    assert (reply.status, reply.result) == (status, None)


@then(parsers.parse('the report has the violation "{code}" because "{reason}"'))
def broken_rule(reply: Reply, code: str, reason: str) -> None:
    (judged,) = reply.document["filepaths"]
    assert [(one["metadata"]["code"], one["msg"]) for one in judged["violations"]] == [
        (code, reason)
    ]


@then(parsers.parse('the answer says "{message}"'))
def message_of(reply: Reply, message: str) -> None:
    assert reply.document == {"error": message, "status": reply.status}
