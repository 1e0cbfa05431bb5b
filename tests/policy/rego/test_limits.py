"""Policies that never end or want too much memory cost one error message."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import DeadlineExceeded, EngineError, Interrupted
from conforma.policy.rego.engine import Engine, EngineLimits, Output

Write = Callable[..., Path]

ENDLESS = """
    package main
    products := [n | some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); n := a * b; n < 0]
    deny contains "never" if {
        print("started")
        count(products) == 0
    }
"""

HUNGRY = """
    package main
    many := numbers.range(1, 3000)
    deny contains "full" if {
        print("started")
        big := [sprintf("%d %s", [a, input.text]) | some a in many]
        count(big) > 0
    }
    modest := sum([n | some n in many])
    patient := ec.oci.blob("r")
"""


def test_cancelling_ends_an_endless_evaluation(engine: Engine, policy_dir: Write) -> None:
    ruleset = engine.compile([policy_dir(ENDLESS)])
    cancellation = Cancellation()

    def on_output(_: Output) -> None:
        cancellation.cancel()

    with pytest.raises(Interrupted):
        ruleset.evaluate(b"{}", ["data.main.deny"], cancellation=cancellation, on_output=on_output)
    assert ruleset.evaluate(b"{}", ["1 + 1"]) == [[2]]


def test_the_engine_really_stops_when_told(engine: Engine, policy_dir: Write) -> None:
    _, key = engine.compile([policy_dir(ENDLESS)]).ready()
    request = {"type": "evaluate", "ruleset": key, "queries": ["data.main.deny"], "print": True}
    with engine.process().conversation() as talk:
        talk.send(request, b"{}")
        first = talk.receive()
        assert first is not None
        assert first.header["type"] == "print"
        talk.send({"type": "cancel"})
        second = talk.receive()
    assert second is not None
    assert second.header["failure"]["kind"] == "cancelled"


def test_the_deadline_of_the_run_ends_an_evaluation(engine: Engine, policy_dir: Write) -> None:
    ruleset = engine.compile([policy_dir(ENDLESS)])
    with pytest.raises(DeadlineExceeded):
        ruleset.evaluate(b"{}", ["data.main.deny"], cancellation=Cancellation(0.2, label="200ms"))


def test_an_evaluation_has_a_time_limit(policy_dir: Write) -> None:
    with Engine.start(limits=EngineLimits(seconds=0.2)) as engine:
        ruleset = engine.compile([policy_dir(ENDLESS)])
        with pytest.raises(EngineError, match="takes longer than it may"):
            ruleset.evaluate(b"{}", ["data.main.deny"])


def test_waiting_for_a_builtin_does_not_count(policy_dir: Write) -> None:
    with Engine.start(limits=EngineLimits(seconds=1.0)) as engine:
        ruleset = engine.compile([policy_dir('package main\nv := ec.oci.blob("r")')])
        clock = Cancellation(1.5)

        def blob(_: str) -> str:
            # More than the limit goes by while the engine waits.
            with pytest.raises(DeadlineExceeded):
                clock.wait(60)
            return "late"

        assert ruleset.evaluate(b"{}", ["data.main.v"], builtins={"ec.oci.blob": blob}) == [
            ["late"]
        ]


def test_only_the_evaluation_that_wants_too_much_memory_fails(policy_dir: Write) -> None:
    with Engine.start(limits=EngineLimits(memory_bytes=300 << 20)) as engine:
        ruleset = engine.compile([policy_dir(HUNGRY)])
        pid = engine.process().pid
        hungry_runs, asked = threading.Event(), []

        def blob(_: str) -> str:
            asked.append(1)
            assert hungry_runs.wait(60)
            return "fed"

        with ThreadPoolExecutor(2) as pool:
            patient = pool.submit(
                ruleset.evaluate, b"{}", ["data.main.patient"], builtins={"ec.oci.blob": blob}
            )
            with pytest.raises(EngineError, match="needs more memory than it may use"):
                ruleset.evaluate(
                    json.dumps({"text": "x" * 200_000}).encode(),
                    ["data.main.deny"],
                    on_output=lambda _: hungry_runs.set(),
                )
            assert patient.result(60) == [["fed"]]
        assert ruleset.evaluate(b"{}", ["data.main.modest"]) == [[4501500]]
        assert engine.process().pid == pid


def test_one_giant_value_ends_the_process_but_not_the_run(policy_dir: Write) -> None:
    with Engine.start(limits=EngineLimits(memory_bytes=200 << 20)) as engine:
        ruleset = engine.compile(
            [policy_dir('package main\nv := count(replace(input.text, "x", input.by))')]
        )
        giant = json.dumps({"text": "x" * 40_000, "by": "y" * 100_000}).encode()
        with pytest.raises(EngineError, match="memory"):
            ruleset.evaluate(giant, ["data.main.v"])
        assert ruleset.evaluate(b'{"text": "x", "by": "yy"}', ["data.main.v"]) == [[2]]
