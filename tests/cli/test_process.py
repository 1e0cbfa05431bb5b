"""The command as a process: killed, interrupted, without streams, and short of everything."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conforma.oci.digest import Digest
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Layer, Member, image_of, layer_of, random_member
from conforma.serve.signing import Signer
from conforma.serve.statements import Build, provenance_v02
from tests.cli.bad_release import FORBIDDEN, assert_clean
from tests.cli.program import LIMIT, environment, finish, run_program, start
from tests.cli.shop import Outcome, Shop

pytestmark = pytest.mark.slow

SHARED = [layer_of([random_member(f"usr/lib/{n}", 400_000, n)]) for n in range(3)]


@pytest.fixture
def arguments(shop: Shop) -> list[str]:
    """The command line for four components that share three layers."""
    for name in ("web", "api", "db", "cron"):
        image = image_of([*SHARED, layer_of([Member(f"app/{name}", b"x" * 99)])])
        digest = image.put(shop.server.store, f"shop/{name}", "1.0")
        signer = Signer(shop.server.store, f"shop/{name}", shop.key)
        signer.sign(digest)
        signer.attest(digest, provenance_v02(Build(name, digest)))
        shop.components.append({"name": name, "containerImage": shop.reference(name)})
    return shop.arguments(policy=shop.policy(shop.rules(FORBIDDEN)), workers="4")


def assert_whole(cache: Path) -> None:
    """Every file of the cache holds what its name promises."""
    for area in ("blobs", "layers"):
        for file in (cache / "v1" / area).rglob("*"):
            if file.is_file() and file.suffix != ".part":
                assert Digest.of(file.read_bytes()).hex == file.name


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(file.parent.name))
    return found


def assert_gone(pids: list[int]) -> None:
    """All processes end; waits on the kernel, not on a clock."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(handle)
        try:
            assert poll.poll(20_000), f"process {pid} is still there"
        finally:
            os.close(handle)


def passed(done: Outcome) -> bool:
    assert_clean(done)
    return done.status == 0 and done.report["success"] is True


@pytest.mark.parametrize("layer", SHARED[:2], ids=["first", "second"])
def test_a_killed_run_leaves_whole_entries_and_nobody_behind(
    shop: Shop, arguments: list[str], layer: Layer
) -> None:
    gate = Gate()
    shop.server.faults.add(Fault(hold_at=200_000, gate=gate), path=f"blobs/{layer.digest}")
    victim = start(arguments)
    gate.wait_reached(60)
    engines = children(victim.pid)
    assert engines
    victim.kill()
    victim.communicate()
    assert_gone(engines)
    assert_whole(shop.directory / "cache")
    gate.release()
    assert passed(run_program(arguments))
    assert_whole(shop.directory / "cache")


def test_a_run_takes_over_what_a_killed_one_was_fetching(shop: Shop, arguments: list[str]) -> None:
    layer = SHARED[0]
    gate = Gate()
    rule = shop.server.faults.add(Fault(hold_at=200_000, gate=gate), path=f"blobs/{layer.digest}")
    victim = start(arguments)
    gate.wait_reached(60)
    heir = start(arguments)
    shop.server.log.wait_for(8, path="/manifests/1.0$", timeout=60)
    victim.kill()
    victim.communicate()
    assert passed(finish(heir))
    gate.release()
    assert rule.hits == 1
    assert_whole(shop.directory / "cache")


def test_three_runs_on_one_cold_cache_fetch_everything_once(
    shop: Shop, arguments: list[str]
) -> None:
    runs = [start(arguments) for _ in range(3)]
    ended = [finish(process) for process in runs]
    assert all(passed(done) for done in ended)
    fetched = Counter(request.path.rpartition("/")[2] for request in shop.server.log)
    assert {fetched[str(layer.digest)] for layer in SHARED} == {1}
    assert_whole(shop.directory / "cache")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "path", ["/manifests/1.0", r"\.att$", "/blobs/"], ids=["images", "evidence", "layers"]
)
def test_an_interruption_leaves_whole_entries_and_nobody_behind(
    shop: Shop, arguments: list[str], number: signal.Signals, path: str
) -> None:
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path=path, skip=1, times=None)
    victim = start(arguments)
    gate.wait_reached(60)
    engines = children(victim.pid)
    victim.send_signal(number)
    done = finish(victim)
    assert (done.status, done.out, done.err) == (130, "", "Error: interrupted\n")
    assert_gone(engines)
    assert_whole(shop.directory / "cache")
    shop.server.faults.clear()
    assert passed(run_program(arguments))


def shell(command: str, arguments: list[str]) -> Outcome:
    """Run the command in a shell line, where it is ``"$@"``."""
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "conforma", *arguments],
        env=environment(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        ('"$@" <&-', 0, ""),
        ('"$@" 2>&-', 0, ""),
        ('"$@" >&-', 1, "Error: write standard output: bad file descriptor\n"),
        ('"$@" <&- >&- 2>&-', 1, ""),
        (
            '"$@" >/dev/full',
            3,
            "Error: write standard output: no space left on device\n"
            "hint: free some space, or write the report elsewhere\n",
        ),
        ('"$@" | true; exit ${PIPESTATUS[0]}', 1, ""),
        ('set -o pipefail; "$@" | head -1', 0, ""),
    ],
)
def test_standard_streams_may_be_missing_full_or_unread(
    shop: Shop, arguments: list[str], command: str, status: int, error: str
) -> None:
    done = shell(command, arguments)
    assert (done.status, done.err) == (status, error)
    if done.out:
        assert passed(done)


@pytest.mark.parametrize("command", ['"$@" >/dev/full', '"$@" >&-'])
@pytest.mark.parametrize("words", [["version"], ["--help"], ["validate", "image", "--help"]])
def test_a_page_that_cannot_be_printed_is_no_bug(command: str, words: list[str]) -> None:
    done = shell(command, words)
    assert done.status == 3
    assert done.err.startswith("Error: ")
    assert "Traceback" not in done.err


def test_an_error_that_cannot_be_printed_keeps_its_status(shop: Shop) -> None:
    shop.publish("web")
    shop.server.faults.add(Fault(status=500), path="/shop/web/", times=None)
    assert shell('"$@" 2>/dev/full', shop.arguments()).status == 3


def low(limit: int, value: int) -> Callable[[], None]:
    """Sets a limit in the child; the hard one too, so that it cannot be raised again."""
    return lambda: resource.setrlimit(limit, (value, value))


@pytest.mark.parametrize("files", [14, 20, 28, 40, 64])
def test_too_few_open_files_are_explained_or_enough(
    shop: Shop, arguments: list[str], files: int
) -> None:
    done = run_program([*arguments, "--workers=12"], before=low(resource.RLIMIT_NOFILE, files))
    assert_clean(done)
    assert done.status in (0, 3)
    if done.status == 3:
        assert "open files" in done.err
    assert_whole(shop.directory / "cache")
    assert passed(run_program(arguments))


def test_a_low_limit_of_open_files_is_raised(shop: Shop, arguments: list[str]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 4096))

    assert passed(run_program([*arguments, "--workers=12"], before=limit))


@pytest.mark.parametrize("mebibytes", [600, 1200])
def test_too_little_memory_is_explained(shop: Shop, arguments: list[str], mebibytes: int) -> None:
    done = run_program(arguments, before=low(resource.RLIMIT_AS, mebibytes << 20))
    assert_clean(done)
    assert done.status in (0, 3)
    if done.status == 3:
        assert "memory" in done.err or "threads" in done.err
    assert passed(run_program(arguments))


@pytest.mark.parametrize(
    "changes",
    [
        {"HOME": None, "XDG_CACHE_HOME": None, "EC_CACHE_DIR": None},
        {"HOME": "/proc/none", "XDG_CACHE_HOME": None},
        {"TMPDIR": "/proc/none"},
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"TZ": "Nowhere/Land"},
        {"PATH": ""},
        {"COLUMNS": "1", "TERM": "dumb"},
    ],
    ids=lambda changes: "-".join(changes),
)
@pytest.mark.parametrize("output", ["json", "text"])
def test_an_odd_environment_changes_nothing(
    shop: Shop, changes: dict[str, str | None], output: str
) -> None:
    shop.publish("web")
    shop.components[0]["name"] = "k\u00e4se\u202e\u65e5"
    file = shop.directory / "snapshot.json"
    file.write_text(json.dumps({"components": shop.components}))
    expected = run_program(shop.arguments(images=str(file), output=output))
    done = run_program(shop.arguments(images=str(file), output=output), changes=changes)
    assert (done.status, done.err) == (0, "")
    if output == "text":
        assert done.lasting == expected.lasting
    else:
        assert done.report["components"] == expected.report["components"]


def test_two_outputs_to_one_file_are_refused_before_any_work(shop: Shop) -> None:
    shop.publish("web")
    file = shop.directory / "report"
    done = run_program([*shop.arguments(output=f"json={file}"), f"--output=text={file}"])
    assert (done.status, done.out) == (1, "")
    assert done.err == f"Error: two outputs to {file}: each would overwrite the other\n"
    assert not file.exists()
    assert not list(shop.server.log)


def test_only_the_program_itself_tunes_the_interpreter() -> None:
    """Others import the packages; their collector and their httpx are none of our business."""
    probe = (
        "import gc, sys; before = gc.get_threshold();"
        "import conforma.cli.root, conforma.oci.registry, conforma.oci.transport;"
        "assert gc.get_threshold() == before; import httpx._main"
    )
    subprocess.run([sys.executable, "-c", probe], env=environment(), check=True, timeout=LIMIT)
