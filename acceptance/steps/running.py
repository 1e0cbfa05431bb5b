"""Running the command, once, several times, or several at once."""

from __future__ import annotations

import re
import shlex
import signal

from pytest_bdd import given, parsers, when

from acceptance.steps.images import layers_of, shared_layers
from acceptance.world import World
from conforma.serve.faults import Fault, Gate


@when(parsers.re(r'"(?P<name>[^"]+)" is validated$'))
def validate_image(world: World, name: str) -> None:
    world.validate(f"--image={world.images[name].reference}")


@when(parsers.re(r'"(?P<name>[^"]+)" is validated with "(?P<options>[^"]*)"$'))
def validate_image_with(world: World, name: str, options: str) -> None:
    world.validate(f"--image={world.images[name].reference}", *shlex.split(options))


@when(parsers.re(r"the release is validated$"))
def validate_release(world: World) -> None:
    world.validate(f"--images={world.write_snapshot()}")


@when(parsers.re(r'the release is validated with "(?P<options>[^"]*)"$'))
@when(parsers.re(r'the release is validated again with "(?P<options>[^"]*)"$'))
def validate_release_with(world: World, options: str) -> None:
    world.validate(f"--images={world.write_snapshot()}", *shlex.split(options))


@when(
    parsers.re(
        r'the log is forgotten and the release is validated again with "(?P<options>[^"]*)"$'
    )
)
def validate_release_after_clearing(world: World, options: str) -> None:
    world.registry.log.clear()
    validate_release_with(world, options)


@when(parsers.parse('{count:d} processes validate the release at once with "{options}"'))
def validate_release_at_once(world: World, count: int, options: str) -> None:
    snapshot = world.write_snapshot()
    started = []
    for _ in range(count):
        report = world.new_report()
        arguments = world.arguments(f"--images={snapshot}", *shlex.split(options), report=report)
        started.append((world.start(*arguments), report))
    for process, report in started:
        world.finish(process, report)


@when(parsers.parse('the release is mirrored to "{place}"'))
def mirror_release(world: World, place: str, *more: str) -> None:
    arguments = ("mirror", f"--images={world.write_snapshot()}", f"--to={place}", *more)
    world.finish(world.start(*arguments), world.new_report())


@when(parsers.parse('the release and its policy are mirrored to "{place}"'))
def mirror_release_and_policy(world: World, place: str) -> None:
    mirror_release(world, place, f"--policy={world.write_policy()}")


@when(parsers.parse('the log is forgotten and the release is mirrored again to "{place}"'))
def mirror_release_after_clearing(world: World, place: str) -> None:
    world.registry.log.clear()
    mirror_release(world, place)


@when(parsers.re(r'the rule "(?P<code>[^"]+)" is explained for the release$'))
@when(parsers.re(r'the rule "(?P<code>[^"]+)" is explained for "(?P<name>[^"]+)" of the release$'))
def explain_rule(world: World, code: str, name: str = "web") -> None:
    validation = world.arguments(f"--images={world.write_snapshot()}", report=world.new_report())
    shared = ("--policy=", "--public-key=", "--images=", "--ignore-rekor")
    arguments = [argument for argument in validation if argument.startswith(shared)]
    process = world.start("explain", code, f"--component={name}", *arguments)
    world.finish(process, world.new_report())


@when("the release is validated and interrupted while the registry hangs")
def interrupt(world: World, gate: Gate) -> None:
    report = world.new_report()
    arguments = world.arguments(f"--images={world.write_snapshot()}", report=report)
    process = world.start(*arguments)
    gate.wait_reached(60)
    process.send_signal(signal.SIGINT)
    # The answer is released only when the command has ended: it must not wait for it.
    world.finish(process, report)
    world.registry.faults.clear()
    world.registry.log.settled()


@when("one process is killed while it downloads that layer, and another one waits for it")
def kill_neighbour(world: World, gate: Gate) -> None:
    """The second process is known to wait when it asks for what the first never came to."""
    snapshot = world.write_snapshot()
    victim = world.start(
        *world.arguments(f"--images={snapshot}", "--workers=1", report=world.new_report())
    )
    gate.wait_reached(60)
    last = max(world.images)
    own = next(d for d in layers_of(world, last) if d not in shared_layers(world))
    arrived = Gate()
    world.registry.faults.add(Fault(hold_at=0, gate=arrived), path=str(own))
    report = world.new_report()
    survivor = world.start(*world.arguments(f"--images={snapshot}", "--workers=4", report=report))
    arrived.wait_reached(60)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=30)
    assert victim.returncode == -signal.SIGKILL
    gate.release()
    arrived.release()
    world.finish(survivor, report)


@given(parsers.parse('the directory "{name}" holds a file'))
def occupied_directory(world: World, name: str) -> None:
    (world.directory / name).mkdir()
    (world.directory / name / "file").touch()


@when(parsers.parse('"conforma {arguments}" is run'))
def run_command(world: World, arguments: str) -> None:
    world.finish(world.start(*shlex.split(arguments)), world.new_report())


@when("the kept release is served and its command is run")
def serve_and_run(world: World) -> None:
    serving = world.start("demo", "--serve=kept")
    assert serving.stdout is not None
    lines = []
    while not (lines and lines[-1].startswith("Serving ")):
        lines.append(serving.stdout.readline())
        assert lines[-1], "the registry was not served"
    command = re.search(r"conforma (validate image .*?)\n\n", "".join(lines), re.DOTALL)
    assert command is not None
    arguments = shlex.split(command[1].replace("\\\n", " "))
    world.finish(world.start(*arguments), world.new_report())
    serving.send_signal(signal.SIGINT)
    serving.communicate(timeout=30)
    assert serving.returncode == 0
