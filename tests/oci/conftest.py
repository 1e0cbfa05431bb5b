from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from conforma.cancellation import Cancellation
from conforma.oci.registry import Patience, Registry, RegistryOptions, RequestSeen, RetryPolicy
from conforma.serve.registry import RegistryServer
from tests.oci.debian import DebianRegistry, docker_registry
from tests.oci.scenery import Client, ClientFactory, Serving

# Properties are about values, not about how busy the machine is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
QUICK = RetryPolicy(duration=0.001, max_wait=0.002)


@pytest.fixture(scope="session")
def docker_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a docker-registry."""
    with docker_registry(tmp_path_factory.mktemp("docker-registry")) as host:
        yield host


@pytest.fixture(params=["ours", "docker-registry"])
def serving(request: pytest.FixtureRequest) -> Serving:
    """Starts registries: every test that uses one runs against our own and against Debian's."""
    if request.param == "ours":
        return RegistryServer
    return partial(DebianRegistry, request.getfixturevalue("docker_upstream"))


@pytest.fixture
def server(serving: Serving) -> Iterator[RegistryServer]:
    with serving() as running:
        yield running
        running.faults.clear()


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    made = Cancellation()
    yield made
    made.close()


@pytest.fixture
def client(tmp_path: Path, cancellation: Cancellation) -> Iterator[ClientFactory]:
    """Makes clients that know no credentials and hardly wait, unless told otherwise."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Client:
            seen: list[RequestSeen] = []
            settings: dict[str, Any] = {
                "retry": QUICK,
                "environment": {"HOME": str(tmp_path), "PATH": ""},
                "observer": seen.append,
                "patience": Patience(connect=5, head=10, read=10),
                **changes,
            }
            registry = stack.enter_context(Registry(RegistryOptions(**settings), cancellation))
            return Client(registry, seen)

        yield make


@pytest.fixture
def registry(client: ClientFactory) -> Registry:
    return client().registry
