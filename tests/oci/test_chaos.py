"""Many threads against a server that does everything wrong now and then."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conforma.errors import ConformaError
from conforma.oci import media_types
from conforma.oci.manifest import Index
from conforma.oci.reference import Reference
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, stored

TAGS, BLOBS, JOBS = 30, 12, 200


def some_fault(chance: random.Random) -> Fault:
    kinds: list[dict[str, Any]] = [
        {"status": 503},
        {"status": 500},
        {"status": 429},
        {"status": 403},
        {"truncate_at": chance.randrange(300_000)},
        {"reset_at": chance.randrange(300_000)},
        {"flip_at": chance.randrange(300)},
        {"extra": b"zz"},
        {"content_length": 7},
        {"ignore_range": True},
        {"http10": True},
        {"chunked": True},
        {"endless": True},
    ]
    return Fault(**chance.choice(kinds))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_right_or_an_error(client: ClientFactory, seed: int) -> None:
    chance = random.Random(seed)
    with RegistryServer(auth=BearerAuth()) as server:
        contents = [chance.randbytes(chance.randrange(1, 500_000)) for _ in range(BLOBS)]
        blobs = [stored(server, "app", content) for content in contents]
        for n in range(TAGS):
            document = {"schemaVersion": 2, "manifests": [], "annotations": {"n": str(n)}}
            server.store.repository("app").put_manifest(
                json.dumps(document).encode(), media_types.OCI_INDEX, tag=f"t{n}"
            )
        for _ in range(100):
            server.faults.add(some_fault(chance), skip=chance.randrange(20))
        registry = client(small_requests=8, bulk_transfers=3).registry
        base = Reference.parse(f"{server.host}/app")

        def job(number: int) -> bool:
            try:
                if number % 2:
                    document = registry.manifest(base.with_tag(f"t{number % TAGS}"))
                    assert isinstance(document, Index)
                    assert document.annotations["n"] == str(number % TAGS)
                else:
                    with registry.open_blob(base, blobs[number % BLOBS]) as chunks:
                        assert b"".join(chunks) == contents[number % BLOBS]
            except ConformaError as error:
                assert error.message
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(job, range(JOBS)))
            assert any(outcomes)
            server.faults.clear()
            # Nothing that went wrong was remembered.
            assert all(pool.map(job, range(JOBS)))
        lanes = [s.lanes.values() for s in registry._exchange.pool._servers.values()]
        assert [limit.active for server_lanes in lanes for limit in server_lanes] == [0, 0]
