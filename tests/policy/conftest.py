"""What fetches sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conforma.cancellation import Cancellation
from conforma.oci.options import RegistryOptions
from conforma.oci.registry import Registry
from conforma.policy.source import Sources
from tests.policy.fetching import FAST, sources_with


@pytest.fixture
def cancellation() -> Cancellation:
    return Cancellation()


@pytest.fixture
def registry(cancellation: Cancellation) -> Iterator[Registry]:
    with Registry(RegistryOptions(retry=FAST), cancellation) as registry:
        yield registry


@pytest.fixture
def sources(cancellation: Cancellation, registry: Registry) -> Iterator[Sources]:
    with sources_with(cancellation, registry) as sources:
        yield sources
