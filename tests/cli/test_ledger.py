"""``conforma ledger`` as its operators use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from conforma.cli.root import run
from conforma.ledger.statement import Summary, envelope, statement
from conforma.oci.digest import Digest
from conforma.serve.signing_key import SigningKey
from conforma.trust.private_key import PrivateKey

KEY = PrivateKey.parse(SigningKey.generate().private_pem.encode(), "k")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONFORMA_LEDGER_MEMORY", str(tmp_path / "memory"))
    monkeypatch.setenv("CONFORMA_LEDGER_KEY", str(tmp_path / "keys/online.pem"))
    place = tmp_path / "ledger"
    assert run(["ledger", "init", str(place), f"--keys={tmp_path / 'keys'}", "--bins=4"]) == 0
    return place


def summary(tmp_path: Path, name: str) -> tuple[str, Digest]:
    digest = Digest.of(name.encode())
    file = tmp_path / f"{name}.json"
    predicate = {"policy": {}, "status": "passed", "timestamp": "2026-01-01T00:00:00Z"}
    file.write_bytes(envelope(statement(f"registry.test/{name}", digest, predicate), KEY))
    return str(file), digest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"garbage", "it is no JSON: Expecting value"),
        (b'{"signatures": []}', "it has no signed"),
        (b"[]", "it is no signed metadata"),
        (b" " * 600_000, "it has over 512000 bytes"),
        ("timestamp.json", "it is timestamp metadata"),
        (None, "no such file or directory"),
    ],
)
def test_a_root_that_is_none_is_told_from_a_ledger_that_is_damaged(
    ledger: Path,
    tmp_path: Path,
    content: bytes | str | None,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "given.json"
    if isinstance(content, str):
        content = (ledger / "metadata" / content).read_bytes()
    if content is not None:
        root.write_bytes(content)
    capsys.readouterr()
    assert run(["ledger", "verify", str(ledger), f"--root={root}"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: --root: ") and str(root) in error and reason in error
    assert "metadata/1.root.json" in hint
    monkeypatch.setenv("CONFORMA_LEDGER_ROOT", str(root))
    assert run(["ledger", "verify", str(ledger)]) == 1
    assert capsys.readouterr().err.startswith("Error: CONFORMA_LEDGER_ROOT: ")


def test_publish_then_get_then_verify(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (web, digest), (api, _) = summary(tmp_path, "web"), summary(tmp_path, "api")
    capsys.readouterr()
    assert run(["ledger", "publish", str(ledger), web, api]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[2].rpartition("-")[0] for line in lines] == [
        f"{Summary.parse(Path(web).read_bytes()).policy}/sha256"
    ] * 2
    for policy in ([], [f"--policy={lines[0][2].partition('/')[0]}"]):
        assert run(["ledger", "get", str(ledger), str(digest), *policy]) == 0
        assert capsys.readouterr().out.encode() == Path(web).read_bytes() + b"\n"
    assert run(["ledger", "verify", str(ledger)]) == 0
    assert "4 bins, 2 summaries" in capsys.readouterr().out
    assert run(["ledger", "bump", str(ledger), "--everything"]) == 0
    assert run(["ledger", "gc", str(ledger)]) == 0
    assert run(["ledger", "status", str(ledger)]) == 0
    out = capsys.readouterr().out
    status = json.loads(out[out.index("{") :])
    assert status["pending"] == status["unpublished"] == 0 and status["expired"] == []
    assert status["version"] >= 3


def test_hold_and_release(ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web, digest = summary(tmp_path, "web")
    capsys.readouterr()
    assert run(["ledger", "publish", str(ledger), "--hold", web]) == 0
    held = capsys.readouterr().out.split("\t")[0]
    assert run(["ledger", "bump", str(ledger)]) == 0
    assert run(["ledger", "get", str(ledger), str(digest)]) == 1
    assert run(["ledger", "publish", str(ledger), f"--release={held}"]) == 0
    assert run(["ledger", "get", str(ledger), str(digest)]) == 0
    capsys.readouterr()
    assert run(["ledger", "publish", str(ledger), f"--release={held}"]) == 1
    assert f"no operation {held} is held" in capsys.readouterr().err


def test_what_is_queued_without_waiting_is_published_by_the_next(
    ledger: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    web, digest = summary(tmp_path, "web")
    monkeypatch.delenv("CONFORMA_LEDGER_KEY")  # queueing needs no key
    assert run(["ledger", "publish", str(ledger), "--wait=false", web]) == 0
    assert run(["ledger", "bump", str(ledger)]) == 1
    assert "no online key was given" in capsys.readouterr().err
    assert run(["ledger", "bump", str(ledger), f"--key={tmp_path / 'keys/online.pem'}"]) == 0
    assert run(["ledger", "get", str(ledger), str(digest)]) == 0


def test_keys_are_replaced_in_two_steps(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web, digest = summary(tmp_path, "web")
    assert run(["ledger", "publish", str(ledger), web]) == 0
    trusted = tmp_path / "root.json"
    trusted.write_bytes((ledger / "metadata/1.root.json").read_bytes())
    old, new, next_ = (str(tmp_path / name) for name in ("keys", "new", "next"))
    offline = tmp_path / "offline"  # the machine with the keys has settings and metadata only
    shutil.copytree(ledger / "metadata", offline / "metadata")
    shutil.copy(ledger / "ledger.json", offline)
    rotate = ["ledger", "rotate", str(offline), f"--staged={next_}"]
    capsys.readouterr()
    begun = [*rotate, f"--sign={old}/root.pem", "--new=root,online", f"--keys={new}"]
    assert run(begun) == 0
    out = capsys.readouterr().out
    assert "root.json: version 2, expires 20" in out
    assert "still to be signed: targets: 0 of 1 signed" in out and "complete" not in out
    publish = ["ledger", "rotate", str(ledger), f"--staged={next_}", "--publish"]
    assert run([*publish, f"--key={new}/online.pem"]) == 3
    assert "targets: 0 of 1 signed" in capsys.readouterr().err
    assert run([*rotate, f"--sign={old}/targets.pem"]) == 0
    assert "--publish --key NEW" in capsys.readouterr().out
    assert run([*publish, f"--key={new}/online.pem", f"--old-key={old}/online.pem"]) == 0
    assert run(["ledger", "verify", str(ledger), f"--root={trusted}"]) == 0
    assert run(["ledger", "get", str(ledger), str(digest), f"--root={trusted}"]) == 0
    capsys.readouterr()
    assert run(["ledger", "bump", str(ledger), f"--key={old}/online.pem"]) == 3
    assert "this is not the online key of the ledger" in capsys.readouterr().err
    assert run(["ledger", "bump", str(ledger), f"--key={new}/online.pem"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["publish"], "takes the directory of the ledger"),
        (["status", "nowhere"], "nowhere/ledger.json: No such file"),
        (["init", "x"], "--keys is missing"),
        (["init", "x", "--keys=y", "--bins=3"], "3 is not a power of two"),
        (["serve", "{}", "--listen=nothing"], "is not ADDRESS:PORT"),
        (["serve", "{}", "--listen=:99999"], "is not ADDRESS:PORT"),
        (["serve", "{}", "--listen=127.0.0.1:²"], "is not ADDRESS:PORT"),
        (["publish", "{}/ledger.json", "{}"], "/ledger.json is a file"),
        (["publish", "{}", "{}/ledger.json"], "name the summaries that conforma validate image"),
        (["publish", "{}"], "nothing to publish"),
        (["publish", "{}", "none.json"], "none.json: No such file"),
        (["publish", "{}", "{}/ledger.json"], "is not a verification summary"),
        (["get", "{}", "sha256:12"], "12"),
        (["rotate", "{}"], "--staged is missing"),
        (["rotate", "{}", "--staged=s"], "no key signs"),
        (["rotate", "{}", "--staged=s", "--publish"], "s: nothing is prepared there"),
        (["rotate", "{}", "--staged=s", "--publish", "--sign=k"], "--publish and --sign exclude"),
        (["rotate", "{}", "--staged=s", "--new=roots"], "roots is none of root, targets, online"),
        (["rotate", "{}", "--staged=s", "--new=root"], "--keys is missing"),
        (["rotate", "{}", "--staged=s", "--new=root", "--keys={}/k"], "is within the ledger"),
        (["rotate", "{}", "--staged=s", "--root-key=none"], "none: No such file"),
        (["rotate", "{}", "--staged=s", "--root-key={}/ledger.json"], "no usable public key"),
        (["rotate", "{}", "--staged=s", "--sign=none.pem"], "none.pem: No such file"),
        (["get", "http://127.0.0.1:9/", "sha256:" + "0" * 64], "cannot be read"),
    ],
)
def test_mistakes_are_explained(
    ledger: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["ledger", *(word.replace("{}", str(ledger)) for word in words)]) in (1, 3)
    assert message in capsys.readouterr().err


def test_status_is_json_on_many_lines_or_one(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for flags in ([], ["--json"]):
        capsys.readouterr()
        assert run(["ledger", "status", str(ledger), *flags]) == 0
        printed.append(capsys.readouterr().out)
    many, one = printed
    assert len(many.splitlines()) > 1 == len(one.splitlines())
    assert json.loads(one).keys() == json.loads(many).keys()


@pytest.mark.slow
def test_serve_is_read_over_http(ledger: Path, tmp_path: Path) -> None:
    web, digest = summary(tmp_path, "web")
    assert run(["ledger", "publish", str(ledger), web]) == 0
    command = [sys.executable, "-m", "conforma", "ledger", "serve", str(ledger)]
    with subprocess.Popen(
        [*command, "--listen=127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" at ")[1].strip()
            policy = Summary.parse(Path(web).read_bytes()).policy
            assert run(["ledger", "get", url, str(digest), f"--policy={policy}"]) == 0
            with urllib.request.urlopen(f"{url}/metadata/timestamp.json") as answer:
                assert answer.status == 200
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.slow
def test_serving_ends_in_peace_when_its_time_is_up(ledger: Path) -> None:
    for words in (["ledger", "serve", str(ledger)], ["serve", "--upstream=127.0.0.1:9"]):
        command = [sys.executable, "-m", "conforma", *words, "--listen=127.0.0.1:0"]
        done = subprocess.run([*command, "--timeout=100ms"], capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"serving ")
