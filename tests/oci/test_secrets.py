"""A password appears in nothing that anybody can read, whatever goes wrong (RC-10, fault 50)."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from conforma.errors import ConformaError
from conforma.oci.options import QuestionSeen
from conforma.oci.reference import Reference
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.faults import Fault
from tests.canary import secrets_in
from tests.oci.scenery import SECRET, ClientFactory, Serving, configured, login, put_image

SOMETHING_WRONG = [
    Fault(status=401),
    Fault(status=403),
    Fault(status=404),
    Fault(status=429, headers={"Retry-After": "999"}),
    Fault(status=500),
    Fault(reset_at=0),
    Fault(truncate_at=3),
    Fault(headers={"Content-Type": None}),
    Fault(headers={"WWW-Authenticate": 'Bearer realm="ftp://x/?a=c4nary-realm"'}, status=401),
    Fault(redirect="ftp://me:c4nary-url@nowhere.invalid/?token=c4nary-query"),
]


@pytest.mark.parametrize("where", ["/manifests/", "/token", "/v2/"])
@pytest.mark.parametrize("fault", SOMETHING_WRONG, ids=repr)
@pytest.mark.parametrize("auth", [BasicAuth, BearerAuth])
def test_rc_10_no_error_log_or_record_holds_a_secret(
    serving: Serving,
    client: ClientFactory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    auth: Any,
    fault: Fault,
    where: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[object] = []
    questions: list[QuestionSeen] = []
    with serving(auth=auth("me", SECRET)) as server:
        env = login(tmp_path, server.host)
        made = client(environment=env, witness=questions.append, state=tmp_path / "state")
        reference = put_image(server)
        server.faults.add(fault, path=where, times=None)
        for ask in (made.registry.head, made.registry.manifest, made.registry.tags):
            try:
                told.append(ask(reference))
            except ConformaError as error:
                told += [error, error.hint, repr(error), "".join(traceback.format_exception(error))]
        try:
            made.registry.push_blob(reference, b"data")
        except ConformaError as error:
            told += ["".join(traceback.format_exception(error)), error.hint]
    told += [made.seen, questions, made.registry.stats, caplog.text]
    told += [path.read_text() for path in (tmp_path / "state").glob("*")]
    assert secrets_in("\n".join(map(str, told))) == []
    tokens = made.registry._exchange.login.authorizer._tokens
    assert "Bearer" not in repr(tokens)


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "bm8tY29sb24="},
        {"username": "a:b", "password": SECRET},
        {"username": "me", "password": f"{SECRET}\r\nX: y"},
        {"username": "me", "password": SECRET, "identitytoken": SECRET},
        {"registrytoken": SECRET},
    ],
)
def test_rc_10_credentials_that_cannot_be_used_are_not_quoted(
    serving: Serving,
    client: ClientFactory,
    tmp_path: Path,
    entry: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(auth=BearerAuth("me", "other")) as server:
        env = configured(tmp_path, {"auths": {server.host: entry}})
        made = client(environment=env)
        with pytest.raises(ConformaError) as caught:
            made.registry.head(Reference.parse(f"{server.host}/app"))
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert secrets_in(told + caplog.text + repr(made.seen)) == []
