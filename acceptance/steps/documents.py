"""Documents that are no images, judged by the scenario's policy."""

from __future__ import annotations

from typing import Any

from pytest_bdd import given, parsers, then, when

from acceptance.world import World


@given(parsers.parse('the document "{name}":'))
def write_document(world: World, name: str, docstring: str) -> None:
    (world.directory / name).write_text(docstring)


@when(parsers.parse('the documents "{first}" and "{second}" are validated'))
def validate_documents(world: World, first: str, second: str) -> None:
    report = world.new_report()
    policy = f"--policy={world.write_policy()}"
    process = world.start("validate", "input", first, second, policy, f"--output=json={report}")
    world.finish(process, report)


@then(parsers.parse('the document "{name}" has the violation "{code}" because "{reason}"'))
def broken_rule(world: World, name: str, code: str, reason: str) -> None:
    found = [(each["metadata"]["code"], each["msg"]) for each in _result(world, name)["violations"]]
    assert found == [(code, reason)]


@then(parsers.parse('the document "{name}" has no violations'))
def no_broken_rule(world: World, name: str) -> None:
    assert _result(world, name)["violations"] == []


@then("there is no report")
def no_report(world: World) -> None:
    assert world.outcome.report is None


def _result(world: World, name: str) -> dict[str, Any]:
    assert world.outcome.report is not None, world.outcome.stderr
    (found,) = (each for each in world.outcome.report["filepaths"] if each["filepath"] == name)
    return dict(found)
