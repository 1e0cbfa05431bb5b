"""The child's life: it dies with its parent, its own death is one error message."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conforma.errors import EngineError
from conforma.policy.rego import engine as engine_module
from conforma.policy.rego.engine import Engine, Input, Shared
from conforma.validate.exhaustion import explained

Write = Callable[..., Path]


def wait_for_end(pid: int) -> None:
    """Return when the process has ended; fail after a minute."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([handle], [], [], 60)
        assert ended, f"process {pid} is still there"
    finally:
        os.close(handle)


def test_a_killed_child_is_an_error_that_says_so_and_is_replaced(
    engine: Engine, policy_dir: Write
) -> None:
    ruleset = engine.compile([policy_dir('package main\nv := [input.all, ec.oci.blob("r")]')])
    asked = Input(b"{}", {"all": Shared(b'"shared"')})
    first = engine.process().pid

    def kill(_: str) -> str:
        os.kill(first, signal.SIGKILL)
        wait_for_end(first)
        return "too late"

    with pytest.raises(EngineError, match=rf"\(pid {first}\) was ended by SIGKILL") as caught:
        ruleset.evaluate(asked, ["data.main.v"], builtins={"ec.oci.blob": kill})
    assert caught.value.hint
    found = ruleset.evaluate(asked, ["data.main.v"], builtins={"ec.oci.blob": lambda _: "here"})
    assert found == [[["shared", "here"]]]
    assert engine.process().pid != first


def test_a_thread_that_waits_learns_that_the_child_died(engine: Engine, policy_dir: Write) -> None:
    ruleset = engine.compile(
        [
            policy_dir(
                "package main\nv := [1 | some a in numbers.range(1, 100000); some b in numbers.range(a, 100000); a * b < 0]\nw if { print(1); v }"
            )
        ]
    )
    pid = engine.process().pid
    with pytest.raises(EngineError, match="SIGKILL"):
        ruleset.evaluate(b"{}", ["data.main.w"], on_output=lambda _: os.kill(pid, signal.SIGKILL))


def test_ctrl_c_in_the_terminal_does_not_reach_the_child(engine: Engine, policy_dir: Write) -> None:
    ruleset = engine.compile([policy_dir("package main\nv := 1")])
    pid = engine.process().pid
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        os.kill(pid, number)
    assert ruleset.evaluate(b"{}", ["data.main.v"]) == [[1]]
    assert engine.process().pid == pid


def test_closing_ends_the_child_and_later_use_is_refused(engine: Engine, policy_dir: Write) -> None:
    ruleset = engine.compile([policy_dir("package main\nv := 1")])
    pid = engine.process().pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EngineError, match="closed"):
        ruleset.evaluate(b"{}", ["data.main.v"])


PARENT = """
import os, sys
from conforma.policy.rego.engine import Engine
engine = Engine.start()
engine.process().greeted()
if sys.argv[1] == "forked" and os.fork() == 0:
    # Holds the other end of the engine's pipes for as long as the test lets it.
    sys.stdin.read()
    os._exit(0)
print(engine.process().pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start_parent() -> Iterator[Callable[[str], tuple[int, int]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str) -> tuple[int, int]:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        started.append(parent)
        assert parent.stdout is not None
        return parent.pid, int(parent.stdout.readline())

    yield start
    for parent in started:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize("kind", ["alone", "forked"])
def test_the_child_ends_when_its_parent_is_killed(
    start_parent: Callable[[str], tuple[int, int]], kind: str
) -> None:
    parent, child = start_parent(kind)
    os.kill(child, 0)
    os.kill(parent, signal.SIGKILL)
    wait_for_end(child)


def test_the_child_outlives_the_thread_that_started_it(policy_dir: Write) -> None:
    started: list[Engine] = []
    thread = threading.Thread(target=lambda: started.append(Engine.start()))
    thread.start()
    thread.join()
    with started[0] as engine:
        pid = engine.process().pid
        ruleset = engine.compile([policy_dir("package main\nv := 1")])
        assert ruleset.evaluate(b"{}", ["data.main.v"]) == [[1]]
        assert engine.process().pid == pid


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_starting_does_not_wait_for_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    real = engine_module.find_engine()
    slow = program(tmp_path / "slow", f'#!/bin/sh\nread -r _ < {gate}\nexec {real} "$@"\n')
    monkeypatch.setenv("CONFORMA_ENGINE", str(slow))
    with Engine.start() as engine:
        # Reached while the engine is still held at the gate.
        gate.write_text("go\n")
        assert engine.opa_version.startswith("v1.")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path, "there is no policy engine at"),
        (lambda path: program(path, "#!/bin/sh\necho broken >&2\nexit 3\n"), "status 3: broken"),
        (lambda path: (path.write_text("x"), path)[1], "cannot start the policy engine"),
    ],
)
def test_an_engine_that_does_not_work_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    reason: str,
) -> None:
    monkeypatch.setenv("CONFORMA_ENGINE", str(make(tmp_path / "engine")))
    with pytest.raises(EngineError, match=reason) as caught:
        assert Engine.start().opa_version
    assert caught.value.hint


@pytest.mark.slow
def test_what_an_engine_complained_of_is_told_however_busy_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of our threads gets its turn late.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.2)
    complaint = f"broken {'x' * 60_000}"
    broken = program(tmp_path / "engine", f"#!/bin/sh\necho {complaint} >&2\nexit 3\n")
    monkeypatch.setenv("CONFORMA_ENGINE", str(broken))
    done = threading.Event()

    def keep_busy() -> None:
        while not done.is_set():
            sum(range(1000))

    busy = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in busy:
        thread.start()
    try:
        with pytest.raises(EngineError) as caught:
            assert Engine.start().opa_version
    finally:
        sys.setswitchinterval(interval)
        done.set()
        for thread in busy:
            thread.join()
    assert caught.value.message.endswith(f"ended with status 3: {complaint}")


def test_who_inherits_the_complaints_of_a_dead_engine_does_not_delay_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    heir = f"(read -r _ < {gate}) >/dev/null &"
    broken = program(tmp_path / "engine", f"#!/bin/sh\n{heir}\necho broken >&2\nexit 3\n")
    monkeypatch.setenv("CONFORMA_ENGINE", str(broken))
    try:
        with pytest.raises(EngineError, match="status 3: broken"):
            assert Engine.start().opa_version
    finally:
        gate.write_text("go\n")


def test_an_engine_of_another_protocol_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = '{"type":"hello","protocol":99}'
    old = program(
        tmp_path / "engine",
        f"#!/bin/sh\nprintf '\\0\\0\\0\\{len(hello):o}\\0\\0\\0\\0%s' '{hello}'\nexec cat >/dev/null\n",
    )
    monkeypatch.setenv("CONFORMA_ENGINE", str(old))
    with Engine.start() as engine, pytest.raises(EngineError, match="protocol 99"):
        assert engine.opa_version


def test_without_threads_to_read_it_the_child_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    children: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen.__init__

    def begun(child: subprocess.Popen[bytes], *words: object, **members: object) -> None:
        begin(child, *words, **members)  # type: ignore[call-overload]
        children.append(child)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess.Popen, "__init__", begun)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread") as caught:
        Engine.start()
    explanation = explained(caught.value)
    assert explanation is not None and explanation.hint is not None
    assert all(limit in explanation.hint for limit in ("ulimit -u", "ulimit -v", "--workers"))
    (child,) = children
    assert child.returncode is not None
