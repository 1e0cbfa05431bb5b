"""What the command said: exit status, report, texts."""

from __future__ import annotations

import base64
import re

from pytest_bdd import parsers, then

from acceptance.steps.images import PASSWORD, USER, WRONG
from acceptance.world import World

PASSED, REFUSED, UNDECIDED, INTERRUPTED = 0, 1, 3, 130


@then("it passes")
def passes(world: World) -> None:
    expect_status(world, PASSED)
    assert world.outcome.report is not None
    assert world.outcome.report["success"] is True


@then("it is refused")
def refused(world: World) -> None:
    expect_status(world, REFUSED)
    assert world.outcome.report is not None
    assert world.outcome.report["success"] is False


@then("it could not be decided")
def undecided(world: World) -> None:
    expect_status(world, UNDECIDED)
    assert world.outcome.report is None or world.outcome.report["success"] is False


@then("it was interrupted")
def interrupted(world: World) -> None:
    expect_status(world, INTERRUPTED)
    assert "Traceback" not in world.outcome.stderr


@then(parsers.parse("the exit status is {status:d}"))
def expect_status(world: World, status: int) -> None:
    outcome = world.outcome
    assert outcome.status == status, f"{outcome.status}\n{outcome.stderr}\n{outcome.stdout}"


@then(
    parsers.re(r'"(?P<name>[^"]+)" has the (?P<kind>violation|warning|success) "(?P<code>[^"]+)"$')
)
def has_result(world: World, name: str, kind: str, code: str) -> None:
    codes = world.outcome.codes(name, PLURAL[kind])
    assert code in codes, f"{codes}\n{world.outcome.stderr}"


@then(
    parsers.re(
        r'"(?P<name>[^"]+)" has the (?P<kind>violation|warning) "(?P<code>[^"]+)"'
        r' because "(?P<reason>.+)"$'
    )
)
def has_result_because(world: World, name: str, kind: str, code: str, reason: str) -> None:
    has_result(world, name, kind, code)
    results = world.outcome.component(name)[PLURAL[kind]]
    messages = [r["msg"] for r in results if r.get("metadata", {}).get("code") == code]
    assert any(reason in message for message in messages), messages


@then(parsers.parse('every component has {count:d} times the violation "{code}"'))
def each_has_result(world: World, count: int, code: str) -> None:
    for name in world.images:
        assert world.outcome.codes(name, "violations").count(code) == count


@then(parsers.parse('"{name}" passes'))
def component_passes(world: World, name: str) -> None:
    assert world.outcome.component(name)["success"] is True


@then(parsers.parse('"{name}" does not pass'))
def component_fails(world: World, name: str) -> None:
    assert world.outcome.component(name)["success"] is False


@then(parsers.parse("the report has {count:d} components"))
def component_count(world: World, count: int) -> None:
    assert world.outcome.report is not None
    assert len(world.outcome.report["components"]) == count


@then(parsers.re(r'the report names a component matching "(?P<pattern>[^"]+)"$'))
def component_named(world: World, pattern: str) -> None:
    assert world.outcome.report is not None
    names = [component["name"] for component in world.outcome.report["components"]]
    assert any(re.fullmatch(pattern, name) for name in names), names


@then(parsers.parse('the text report says "{text}"'))
def text_report(world: World, text: str) -> None:
    assert text in world.outcome.stdout


@then(parsers.parse('it prints "{text}"'))
def prints(world: World, text: str) -> None:
    assert text in world.outcome.stdout, world.outcome.stdout + world.outcome.stderr


@then(parsers.parse('it prints a line matching "{pattern}"'))
def prints_line(world: World, pattern: str) -> None:
    lines = world.outcome.stdout.splitlines()
    assert any(re.search(pattern, line) for line in lines), world.outcome.stdout


@then(parsers.parse('the error says "{text}"'))
def error_says(world: World, text: str) -> None:
    error = world.outcome.stderr
    assert text in error, error


@then(parsers.parse('the report or the error says why "{name}" was not decided'))
def names_undecided(world: World, name: str) -> None:
    outcome = world.outcome
    reference = world.images[name].reference
    assert name in outcome.stderr, outcome.stderr
    assert str(world.images[name].digest) in outcome.stderr or reference in outcome.stderr


@then("nothing looks like a bug")
def no_traceback(world: World) -> None:
    assert "Traceback" not in world.outcome.stderr, world.outcome.stderr


@then("no secret is shown")
def no_secret(world: World) -> None:
    shown = world.outcome.stdout + world.outcome.stderr
    encoded = [base64.b64encode(f"{USER}:{p}".encode()).decode() for p in (PASSWORD, WRONG)]
    assert not [secret for secret in (PASSWORD, WRONG, *encoded) if secret in shown]


@then("the report names the commit of the policy")
def pinned_commit(world: World, commit: str) -> None:
    assert world.outcome.report is not None
    [source] = world.outcome.report["policy"]["sources"][0]["policy"]
    assert source.endswith(f"?ref={commit}")


@then("the report names the digest of the policy")
def pinned_digest(world: World, bundle: str) -> None:
    assert world.outcome.report is not None
    [source] = world.outcome.report["policy"]["sources"][0]["policy"]
    assert source.endswith(f"@{bundle}")


PLURAL = {"violation": "violations", "warning": "warnings", "success": "successes"}
