"""``conforma validate input --server``: a process, sockets, and rules that are compiled once."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer
from tests.cli.program import LIMIT, run_program, start
from tests.oci.scenery import until
from tests.report.samples import HOSTILE

pytestmark = pytest.mark.slow

RULES = """
package main

import rego.v1

# METADATA
# title: Spam
# custom:
#   short_name: spam
deny contains {"code": "main.spam", "msg": "there is no spam"} if not input.spam

# METADATA
# title: Ham
# custom:
#   short_name: ham
warn contains {"code": "main.ham", "msg": "the ham is rotten"} if input.ham == "rotten"

# METADATA
# title: Attached
# custom:
#   short_name: attached
deny contains {"code": "main.attached", "msg": "the image is unknown"} if {
    input.image
    not ec.oci.descriptor(input.image)
}

# METADATA
# title: Contradiction
# custom:
#   short_name: contradiction
deny contains {"code": "main.contradiction", "msg": answer} if input.contradict

answer := "one" if input.contradict
answer := "two" if input.contradict
"""
PATH = "/v1/validate/input"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def document(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.text)


@dataclass
class Service:
    """A running server and its log, line by line."""

    process: subprocess.Popen[bytes]
    port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read_until(self, message: str) -> dict[str, Any]:
        """Read the log up to the line with this message, which is returned."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                raise AssertionError(f"no log line: {line.decode()}") from None
            if self.lines[-1]["msg"].startswith(message):
                return self.lines[-1]
        raise AssertionError(f"it ended before {message}: {self.lines}")

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, media_type: str = ""
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            headers = {"Content-Type": media_type} if media_type else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    def judge(self, document: Any) -> Answer:
        """The answer to a document sent as JSON."""
        return self.ask("POST", PATH, json.dumps(document), "application/json")

    def stop(self) -> int:
        """Tell it to stop; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.stopped()

    def stopped(self) -> int:
        """Wait for its end; the exit status."""
        _, rest = self.process.communicate(timeout=LIMIT)
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


def policy(directory: Path, rules: str = RULES) -> str:
    (directory / "rules").mkdir()
    (directory / "rules" / "main.rego").write_text(rules)
    return json.dumps({"sources": [{"policy": [str(directory / "rules")]}]})


@contextmanager
def serving(chosen: str, *args: str, ready: bool = True) -> Iterator[Service]:
    port = "--server-port=0"
    process = start(["validate", "input", "--server", port, "--policy", chosen, *args])
    service = Service(process)
    try:
        if ready:
            address = service.read_until("Server listening on")["msg"].split()[-1]
            assert address.startswith("127.0.0.1:")
            service.port = int(address.rpartition(":")[2])
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("served")
    with serving(policy(directory)) as running:
        # What was compiled is all that is needed.
        shutil.rmtree(directory / "rules")
        yield running


def test_the_answer_is_the_report_of_one_document(service: Service) -> None:
    answer = service.judge({"ham": "rotten"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["X-Conforma-Result"] == "fail"
    report = answer.document
    assert list(report) == ["success", "filepaths", "policy", "ec-version", "effective-time"]
    assert report["filepaths"] == [
        {
            "filepath": "input",
            "violations": [{"msg": "there is no spam", "metadata": {"code": "main.spam"}}],
            "warnings": [{"msg": "the ham is rotten", "metadata": {"code": "main.ham"}}],
            "successes": None,
            "success": False,
            "success-count": 2,
        }
    ]
    assert "\n" not in answer.text
    passed = service.judge({"spam": True})
    assert passed.headers["X-Conforma-Result"] == "pass" and passed.document["success"] is True


def test_each_request_has_its_own_moment(service: Service) -> None:
    first, second = (service.judge({}).document["effective-time"] for _ in range(2))
    assert first < second


@pytest.mark.parametrize("media_type", ["application/yaml", "text/yaml; charset=utf-8", ""])
def test_yaml_is_judged_where_it_is_a_mapping(service: Service, media_type: str) -> None:
    assert service.ask("POST", PATH, "spam: yes\n", media_type).document["success"] is True
    refused = service.ask("POST", PATH, "- spam: yes\n", media_type)
    assert (refused.status, refused.document["error"]) == (
        400,
        "request body is not valid JSON or YAML",
    )


def test_the_elements_of_a_list_are_judged_one_by_one(service: Service) -> None:
    answer = service.judge([{"spam": 1}, {}, {"spam": 2, "ham": "rotten"}])
    found = answer.document["filepaths"][0]
    assert [one["metadata"]["code"] for one in found["violations"]] == ["main.spam"]
    assert [one["metadata"]["code"] for one in found["warnings"]] == ["main.ham"]


@pytest.mark.parametrize(
    ("body", "media_type", "error", "reason"),
    [
        ("", "", "request body is empty", None),
        ("neither", "", "request body is not valid JSON or YAML", "yaml: the document is no"),
        (
            "spam: 1",
            "application/json",
            "request body is not valid JSON or YAML",
            "json: Expecting",
        ),
        (
            '{"a": 1',
            "application/json",
            "request body is not valid JSON or YAML",
            "line 1 column 8",
        ),
        ('{"a": 1, "a": 2}', "", "request body is not valid JSON or YAML", 'key "a" already set'),
        ("a: 1\nb: [", "text/yaml", "request body is not valid JSON or YAML", "line 2"),
        ("a: 1\n---\nb: 2", "text/yaml", "request body is not valid JSON or YAML", "second doc"),
        ("[" * 100_000, "application/json", "request body is not valid JSON or YAML", "too deep"),
        ("null", "application/json", "request body is not valid JSON or YAML", "no document"),
        ("[]", "application/json", "request body is not valid JSON or YAML", "no document"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(
    service: Service, body: str, media_type: str, error: str, reason: str | None
) -> None:
    answer = service.ask("POST", PATH, body, media_type)
    assert answer.text == f'{{"error":"{error}","status":400}}\n'
    assert answer.status == 400
    if reason is not None:
        assert reason in answer.headers["X-Conforma-Reason"]


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_a_document_cannot_write_headers_or_log_lines(service: Service, message: str) -> None:
    twice = json.dumps(message)
    answer = service.ask("POST", PATH, f"{{{twice}: 1, {twice}: 2}}")
    assert answer.text == '{"error":"request body is not valid JSON or YAML","status":400}\n'
    assert answer.headers["X-Conforma-Reason"].isprintable()
    assert len(answer.headers["X-Conforma-Reason"]) < 2000
    assert answer.headers.keys() == {"Content-Length", "Content-Type", "X-Conforma-Reason"}


def test_a_single_json_value_is_a_document(service: Service) -> None:
    assert service.ask("POST", PATH, "5", "application/json").status == 200


def test_a_body_over_the_limit_is_refused(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=LIMIT) as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {(80 << 20) + 1}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error":"request body exceeds 80MB limit","status":413}\n')


def test_a_body_of_several_megabytes_is_judged(service: Service) -> None:
    many = [{"name": f"task-{number}", "text": "x" * 1000} for number in range(8000)]
    assert service.judge({"spam": many}).document["success"] is True


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", PATH, 405, "POST"),
        ("POST", "/live", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
        ("POST", "/v1/validate/image", 404, None),
    ],
)
def test_other_requests_are_refused(
    service: Service, method: str, path: str, status: int, allowed: str | None
) -> None:
    answer = service.ask(method, path, "{}" if method == "POST" else None)
    assert (answer.status, answer.document["status"]) == (status, status)
    assert answer.headers.get("Allow") == allowed


def test_those_who_watch_are_told(service: Service) -> None:
    assert service.ask("GET", "/live").text == '{"status":"ok"}'
    assert service.ask("GET", "/ready").text == '{"status":"ready"}'
    assert service.ask("HEAD", "/ready").status == 200


def test_why_an_evaluation_failed_stands_in_the_log_only(tmp_path: Path) -> None:
    with serving(policy(tmp_path)) as service:
        answer = service.judge({"contradict": True, "password": "swordfish"})
        assert answer.text == '{"error":"evaluation failed","status":500}\n'
        assert service.judge({"spam": True}).status == 200, "the next one is judged"
        assert service.stop() == 0
    failed, completed, *_ = (
        line for line in service.lines if line["msg"] in ("Evaluation failed", "Request completed")
    )
    assert "main.rego" in failed["error"] and failed["level"] == "error"
    assert failed["request_id"] == completed["request_id"]
    assert completed["status"] == 500 and completed["size"] > 0
    assert (completed["method"], completed["path"]) == ("POST", PATH)
    assert "swordfish" not in json.dumps(service.lines)


def test_the_log_tells_the_life_of_the_server(tmp_path: Path) -> None:
    with serving(policy(tmp_path), "--quiet") as service:
        service.ask("GET", "/live")
        assert service.stop() == 0
    assert service.process.stdout is not None
    assert [line["msg"].partition(" on 127")[0] for line in service.lines] == [
        "Starting server",
        "Loading policy sources...",
        "Policy sources loaded, 1 evaluator(s) ready",
        "Server listening",
        "Request completed",
        "Shutting down server...",
        "Server stopped",
    ]
    begun = service.lines[0]
    assert (begun["address"], begun["sources"], begun["level"]) == ("127.0.0.1", 1, "info")


def test_flags_without_effect_are_named(tmp_path: Path) -> None:
    with serving(policy(tmp_path), "--output=json", "--strict", "--color") as service:
        warned = [line["msg"] for line in service.lines if line["level"] == "warning"]
    assert warned == [
        f"Flag --{name} has no effect in server mode" for name in ("output", "strict", "color")
    ]


def test_flags_about_the_report_have_effect(tmp_path: Path) -> None:
    flags = ("--info", "--show-successes", "--show-warnings=false", "--effective-time=2999-01-01")
    with serving(policy(tmp_path), *flags) as service:
        report = service.judge({"ham": "rotten"}).document
    (found,) = report["filepaths"]
    assert found["violations"][0]["metadata"]["title"] == "Spam"
    assert found["warnings"] is None
    assert [one["metadata"]["code"] for one in found["successes"]] == [
        "main.attached",
        "main.contradiction",
    ]
    assert report["effective-time"] == "2999-01-01T00:00:00Z"


def test_requests_are_judged_side_by_side_and_may_finish_when_it_is_told_to_stop(
    tmp_path: Path,
) -> None:
    gate = Gate()
    answers: list[Answer] = []
    with RegistryServer() as registry, serving(policy(tmp_path)) as service:
        # From then on the registry is known to need no token, which requests wait to learn.
        assert service.judge({"image": f"{registry.host}/first:v1"}).status == 200
        registry.faults.add(path=r"/v2/held-.*", fault=Fault(status=404, hang=gate), times=None)

        def ask(number: int) -> None:
            answers.append(service.judge({"spam": 1, "image": f"{registry.host}/held-{number}:v1"}))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        # All of them are in the middle of an evaluation, and others are not kept from theirs.
        until(
            lambda: {e.path.split("/")[2] for e in registry.log} >= {"held-0", "held-1", "held-2"}
        )
        assert service.judge({"spam": True}).status == 200
        service.process.send_signal(signal.SIGTERM)
        service.read_until("Shutting down server...")
        until(lambda: _refuses(service.port))
        gate.release()
        for thread in threads:
            thread.join(LIMIT)
        assert service.stopped() == 0
    assert [answer.status for answer in answers] == [200] * 3
    for answer in answers:
        (violation,) = answer.document["filepaths"][0]["violations"]
        assert violation["msg"] == "the image is unknown"


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_is_alive_but_not_ready_while_the_policy_is_fetched(tmp_path: Path) -> None:
    gate = Gate()
    with RegistryServer() as registry:
        registry.faults.add(fault=Fault(status=404, hang=gate), times=None)
        chosen = json.dumps({"sources": [{"policy": [f"oci::{registry.host}/rules:v1"]}]})
        port = _free_port()
        with serving(chosen, f"--server-port={port}", ready=False) as service:
            service.port = port
            service.read_until("Loading policy sources...")
            gate.wait_reached()
            assert service.ask("GET", "/live").status == 200
            answer = service.ask("GET", "/ready")
            assert (answer.status, answer.text) == (503, '{"status":"not ready"}')
            refused = service.judge({})
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            service.process.send_signal(signal.SIGTERM)
            _, rest = service.process.communicate(timeout=LIMIT)
            gate.release()
    assert service.process.returncode == 130
    assert b"Error: interrupted" in rest


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_rules_that_do_not_compile_keep_it_from_starting(tmp_path: Path) -> None:
    chosen = policy(tmp_path, "package main\n\nimport rego.v1\n\ndeny contains x if { true }\n")
    done = run_program(["validate", "input", "--server", "--server-port=0", "--policy", chosen])
    assert done.status == 1
    assert "main.rego:5" in done.err.splitlines()[-1] or "main.rego:5" in done.err
    assert "Server listening" not in done.err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_program(
            ["validate", "input", "--server", f"--server-port={port}", "--policy", policy(tmp_path)]
        )
    assert done.status == 1
    assert f"Error: listen on 127.0.0.1:{port}: address already in use\n" in done.err
    assert "--server-port" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["file.json", "--policy", "{}"], "--server and input files are mutually exclusive"),
        (["--file=a.yaml", "--policy", "{}"], "--server and input files are mutually exclusive"),
        ([], 'required flag(s) "policy" not set'),
        (["--policy", '{"sources": []}'], "the policy has no sources"),
        (["--server-port=65536", "--policy", "sources: [{policy: [.]}]"], "65536 is no port"),
        (["--server-port=x", "--policy", "{}"], 'invalid argument "x" for "--server-port" flag'),
    ],
)
def test_flags_that_make_no_sense_are_refused(args: list[str], error: str) -> None:
    done = run_program(["validate", "input", "--server", *args])
    assert done.status == 1
    assert error in done.err
