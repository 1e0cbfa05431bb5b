"""Authentication against a registry that asks for it, and the files people have."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conforma.errors import AccessDenied, BadResponse, InputError
from conforma.oci.manifest import Manifest
from conforma.oci.reference import Reference
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import SECRET, ClientFactory, Serving, configured, login, put_image, until


@pytest.mark.parametrize("auth", [BasicAuth("me", SECRET), BearerAuth("me", SECRET)], ids=type)
def test_credentials_are_shown_when_they_are_asked_for(
    serving: Serving, client: ClientFactory, tmp_path: Path, auth: Any
) -> None:
    with serving(auth=auth) as server:
        reference = put_image(server)
        made = client(environment=login(tmp_path, server.host))
        assert isinstance(made.registry.manifest(reference), Manifest)
        made.registry.push_blob(reference, b"pushed")
        assert server.store.repository("app").tags == ("v1",)


def test_nothing_is_shown_to_a_registry_that_does_not_ask(
    server: RegistryServer, client: ClientFactory, tmp_path: Path
) -> None:
    reference = put_image(server)
    client(environment=login(tmp_path, server.host)).registry.head(reference)
    assert [r.header("authorization") for r in server.log.settled()] == [None]


def test_anonymous_tokens_are_fetched_without_credentials(
    serving: Serving, client: ClientFactory
) -> None:
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        registry = client().registry
        registry.head(reference)
        registry.manifest(reference)
        assert registry.stats.tokens == 1
        (token,) = server.log.settled().matching(path="token")
        assert token.header("authorization") is None


def test_rc_9_one_token_serves_many_threads_and_later_requests(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    with serving(auth=BearerAuth("me", SECRET)) as server:
        for n in range(16):
            reference = put_image(server, tag=f"t{n}")
        registry = client(environment=login(tmp_path, server.host)).registry
        gate = Gate()
        server.faults.add(Fault(hang=gate), path="token")
        with ThreadPoolExecutor(16) as pool:
            heads = [pool.submit(registry.head, reference.with_tag(f"t{n}")) for n in range(16)]
            gate.wait_reached()
            gate.release()
            for head in heads:
                head.result(10)
        for n in range(16):
            registry.manifest(reference.with_tag(f"t{n}"))
        assert len(server.log.settled().matching(path="token")) == 1


def test_rc_9_strangers_are_introduced_once(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    """Only the first request to an unknown registry is refused, however many start at once."""
    with serving(auth=BearerAuth("me", SECRET)) as server:
        for n in range(16):
            reference = put_image(server, tag=f"t{n}")
        registry = client(environment=login(tmp_path, server.host)).registry
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: registry.head(reference.with_tag(f"t{n}")), range(16)))
        refused = [r for r in server.log.settled() if r.status == 401]
        assert len(refused) == 1


@pytest.mark.slow
def test_rc_9_tokens_are_renewed_before_they_expire(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    # A lifetime of one second is over after half of it, which is when we renew.
    auth = BearerAuth("me", SECRET, lifetime=1)
    with serving(auth=auth) as server:
        reference = put_image(server)
        registry = client(environment=login(tmp_path, server.host)).registry
        registry.head(reference)
        until(lambda: _renewed(registry, server, reference))
        assert [r.status for r in server.log.settled()].count(401) == 1


def _renewed(registry: Any, server: RegistryServer, reference: Reference) -> bool:
    registry.tags(reference)
    return len(server.log.settled().matching(path="token")) == 2


def test_a_token_that_died_early_is_replaced_once(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    auth = BearerAuth("me", SECRET)
    with serving(auth=auth) as server:
        reference = put_image(server)
        registry = client(environment=login(tmp_path, server.host)).registry
        registry.head(reference)
        auth.revoke_all()
        assert isinstance(registry.manifest(reference), Manifest)
        assert registry.stats.tokens == 2


def test_a_registry_that_refuses_every_token_is_not_asked_for_ever(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    auth = BearerAuth("me", SECRET)
    with serving(auth=auth) as server:
        reference = put_image(server)
        challenge = f'Bearer realm="{server.url}/token",service="s"'
        server.faults.add(
            Fault(status=401, headers={"WWW-Authenticate": challenge}),
            path="/manifests/",
            times=None,
        )
        registry = client(environment=login(tmp_path, server.host)).registry
        with pytest.raises(AccessDenied):
            registry.head(reference)
        assert len(server.log.settled().matching("HEAD")) == 2


def test_rc_15_a_refusal_without_credentials_says_what_to_do(
    serving: Serving, client: ClientFactory
) -> None:
    with serving(auth=BasicAuth("me", SECRET)) as server:
        reference = put_image(server)
        with pytest.raises(AccessDenied) as caught:
            client().registry.head(reference)
    assert caught.value.exit_status == 3
    assert "unexpected status code 401 Unauthorized" in caught.value.message
    assert caught.value.hint is not None
    assert f"no credentials for {server.host} were found; log in" in caught.value.hint


@pytest.mark.parametrize("auth", [BasicAuth("me", "other"), BearerAuth("me", "other")], ids=type)
def test_refused_credentials_are_named_by_their_file_and_never_shown(
    serving: Serving, client: ClientFactory, tmp_path: Path, auth: Any
) -> None:
    with serving(auth=auth) as server:
        reference = put_image(server)
        made = client(environment=login(tmp_path, server.host))
        with pytest.raises(AccessDenied) as caught:
            made.registry.head(reference)
    assert str(tmp_path / ".docker/config.json") in str(caught.value.hint)
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    told = repr(caught.value) + str(caught.value.hint) + repr(caught.value.__cause__)
    told += repr(made.seen) + repr(made.registry._exchange.login.authorizer.__dict__)
    assert SECRET not in told
    assert encoded not in told


def test_an_identity_token_is_exchanged_and_never_sent_to_the_registry(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    with serving(auth=BearerAuth("me", SECRET)) as server:
        reference = put_image(server)
        issued = BearerAuth.issue(server.auth, _basic("me"), "repository:app:pull")  # type: ignore[arg-type]
        assert issued is not None
        answer = json.dumps({"access_token": issued["token"]}).encode()
        server.faults.add(Fault(status=200, body=answer), method="POST")
        env = configured(tmp_path, {"auths": {server.host: {"identitytoken": SECRET}}})
        client(environment=env).registry.head(reference)
        exchanged = [r for r in server.log.settled() if r.method == "POST"]
        assert len(exchanged) == 1
        assert SECRET not in repr([(r.path, r.query, dict(r.headers)) for r in server.log])


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'{"token": 5}',
        b'{"token": "a\\nb"}',
        b'{"token": ""}',
        b'{"token": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_a_token_service_that_answers_nonsense_is_an_error(
    serving: Serving, client: ClientFactory, body: bytes
) -> None:
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        server.faults.add(Fault(status=200, body=body), path="token", times=None)
        with pytest.raises(BadResponse, match="token service"):
            client().registry.head(reference)


@pytest.mark.parametrize("realm", ["", "ftp://x/y", "//", "token"])
def test_a_realm_that_is_no_address_is_refused(
    serving: Serving, client: ClientFactory, realm: str
) -> None:
    with serving() as server:
        reference = put_image(server)
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
        server.faults.add(Fault(status=401, headers=challenge), times=None)
        with pytest.raises(AccessDenied, match="token service we do not talk to"):
            client().registry.head(reference)


def test_a_scheme_we_do_not_speak_is_a_refusal(serving: Serving, client: ClientFactory) -> None:
    with serving() as server:
        reference = put_image(server)
        server.faults.add(Fault(status=401, headers={"WWW-Authenticate": "Negotiate"}), times=None)
        with pytest.raises(AccessDenied, match="401"):
            client().registry.head(reference)


def test_an_unusable_configuration_stops_the_run_when_it_is_needed(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("{")
    env = {"HOME": str(tmp_path), "PATH": ""}
    with serving(auth=BasicAuth("me", SECRET)) as server:
        reference = put_image(server)
        with pytest.raises(InputError, match=r"config\.json: not a registry authentication file"):
            client(environment=env).registry.head(reference)
