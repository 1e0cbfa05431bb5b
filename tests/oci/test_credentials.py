from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, InputError
from conforma.oci.credentials import Credential, Keychain
from conforma.oci.reference import Reference
from conforma.serve.auth import BearerAuth
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, put_image


def entry(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:secret".encode()).decode()}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def user_for(environment: dict[str, str], reference: str) -> str | None:
    found = Keychain(environment, Cancellation()).find(Reference.parse(reference))
    return found.username if found else None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("reference", "user"),
    [
        ("registry.example/team/app", "repository"),
        ("registry.example/team/other", "namespace"),
        ("registry.example/team/deep/app", "namespace"),
        ("registry.example/teams/app", "registry"),
        ("registry.example:5000/team/app", "port"),
        ("other.example/team/app", None),
        ("ubuntu", "hub"),
        ("docker.io/user/app", "hub"),
        ("old.example/x", "old"),
        ("slash.example/x", "slash"),
    ],
)
def test_the_longest_matching_key_wins(home: Path, reference: str, user: str | None) -> None:
    auths = {
        "registry.example/team/app": entry("repository"),
        "registry.example/team": entry("namespace"),
        "registry.example": entry("registry"),
        "registry.example:5000": entry("port"),
        "https://index.docker.io/v1/": entry("hub"),
        "https://old.example/v2/": entry("old"),
        "http://slash.example/": entry("slash"),
    }
    write(home / ".docker/config.json", {"auths": auths})
    assert user_for({"HOME": str(home)}, reference) == user


def test_files_are_searched_in_their_order(home: Path, tmp_path: Path) -> None:
    def auths(user: str) -> dict[str, Any]:
        return {"auths": {"r.example": entry(user)}}

    env = {"HOME": str(home)}
    assert user_for(env, "r.example/a") is None
    write(home / ".docker/config.json", auths("docker"))
    assert user_for(env, "r.example/a") == "docker"
    write(home / ".config/containers/auth.json", auths("podman"))
    assert user_for(env, "r.example/a") == "podman"
    env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert user_for(env, "r.example/a") == "docker"
    write(tmp_path / "xdg/containers/auth.json", auths("xdg"))
    assert user_for(env, "r.example/a") == "xdg"
    env["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    write(tmp_path / "run/containers/auth.json", auths("runtime"))
    assert user_for(env, "r.example/a") == "runtime"
    env["DOCKER_CONFIG"] = str(tmp_path / "docker")
    write(tmp_path / "docker/config.json", auths("named"))
    assert user_for(env, "r.example/a") == "named"
    env["REGISTRY_AUTH_FILE"] = str(write(tmp_path / "auth.json", auths("explicit")))
    assert user_for(env, "r.example/a") == "explicit"


def test_a_file_without_an_answer_leaves_it_to_the_next(home: Path) -> None:
    write(home / ".config/containers/auth.json", {"auths": {"other.example": entry("no")}})
    write(home / ".docker/config.json", {"auths": {"r.example": entry("yes")}})
    assert user_for({"HOME": str(home)}, "r.example/a") == "yes"


def helper(directory: Path, name: str, body: str) -> None:
    directory.mkdir(exist_ok=True)
    script = directory / f"docker-credential-{name}"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


def helped(home: Path, tmp_path: Path, document: dict[str, Any]) -> dict[str, str]:
    write(home / ".docker/config.json", document)
    return {"HOME": str(home), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


def test_a_helper_answers_for_its_registry_and_is_asked_once(home: Path, tmp_path: Path) -> None:
    helper(
        tmp_path / "bin",
        "mine",
        f'read server; echo "$1 $server" >>{tmp_path}/calls; '
        'echo "{\\"Username\\":\\"u-$server\\",\\"Secret\\":\\"s\\"}"',
    )
    env = helped(home, tmp_path, {"credHelpers": {"r.example": "mine"}, "auths": {"r.example": {}}})
    keychain = Keychain(env, Cancellation())
    for repository in ("a", "b"):
        found = keychain.find(Reference.parse(f"r.example/{repository}"))
        assert found is not None
        assert (found.username, found.password) == ("u-r.example", "s")
    assert keychain.find(Reference.parse("other.example/a")) is None
    assert (tmp_path / "calls").read_text() == "get r.example\n"


def test_an_empty_entry_falls_through_to_the_store(home: Path, tmp_path: Path) -> None:
    helper(tmp_path / "bin", "store", 'echo \'{"Username":"<token>","Secret":"identity"}\'')
    env = helped(home, tmp_path, {"auths": {"r.example": {}}, "credsStore": "store"})
    found = Keychain(env, Cancellation()).find(Reference.parse("r.example/a"))
    assert found is not None
    assert found.identity_token == "identity"
    assert found.password == ""


def test_docker_hub_has_its_own_name_for_helpers(home: Path, tmp_path: Path) -> None:
    helper(
        tmp_path / "bin", "store", 'read s; echo "{\\"Username\\":\\"$s\\",\\"Secret\\":\\"s\\"}"'
    )
    env = helped(home, tmp_path, {"credsStore": "store"})
    assert user_for(env, "ubuntu") == "https://index.docker.io/v1/"


def test_a_helper_that_has_nothing_means_anonymous(home: Path, tmp_path: Path) -> None:
    helper(tmp_path / "bin", "store", "echo credentials not found in native keychain; exit 1")
    env = helped(home, tmp_path, {"credsStore": "store"})
    assert user_for(env, "r.example/a") is None


def test_the_name_of_a_server_never_reaches_a_shell(home: Path, tmp_path: Path) -> None:
    env = helped(home, tmp_path, {"credHelpers": {"r.example": "x; touch pwned"}})
    with pytest.raises(AccessDenied, match="is not installed"):
        user_for(env, "r.example/a")
    env = helped(home, tmp_path, {"credHelpers": {"r.example": "../../bin/sh"}})
    with pytest.raises(AccessDenied, match="is not installed"):
        user_for(env, "r.example/a")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo s3cret; exit 3", "ended with status 3"),
        ("echo s3cret", "did not answer a JSON credential"),
        ('echo \'{"Username":"s3cret"}\'', "did not answer a JSON credential"),
        ("echo '[\"s3cret\"]'", "did not answer a JSON credential"),
        ('echo \'{"Username":"s3cret","Secret":1}\'', "did not answer a JSON credential"),
        ("exec head -c 1000000 /dev/zero", "printed more than 65536 bytes"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(
    home: Path, tmp_path: Path, body: str, reason: str
) -> None:
    helper(tmp_path / "bin", "bad", body)
    env = helped(home, tmp_path, {"credHelpers": {"r.example": "bad"}})
    with pytest.raises(AccessDenied) as caught:
        user_for(env, "r.example/a")
    assert f"credential helper docker-credential-bad {reason}" in caught.value.message
    assert "r.example/a" in caught.value.message
    assert "s3cret" not in caught.value.message + str(caught.value.hint)


def test_a_broken_store_does_not_keep_us_from_public_images(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    helper(tmp_path / "bin", "bad", "echo s3cret; exit 3")
    keychain = Keychain(helped(home, tmp_path, {"credsStore": "bad"}), Cancellation())
    reference = Reference.parse("r.example/a")
    assert keychain.find(reference) is None
    assert keychain.find(reference) is None
    (warning,) = caplog.messages
    assert "r.example: credential helper docker-credential-bad ended with status 3" in warning
    assert "s3cret" not in warning
    trouble = keychain.trouble(reference)
    assert trouble is not None and "docker-credential-bad" in trouble
    assert keychain.trouble(Reference.parse("other.example/a")) is None


def test_a_refusal_tells_of_the_broken_store(
    client: ClientFactory, home: Path, tmp_path: Path
) -> None:
    helper(tmp_path / "bin", "bad", "exit 3")
    env = helped(home, tmp_path, {"credsStore": "bad"})
    with (
        RegistryServer(auth=BearerAuth("me", "x")) as server,
        pytest.raises(AccessDenied) as caught,
    ):
        client(environment=env).registry.head(put_image(server))
    assert "docker-credential-bad ended with status 3" in str(caught.value.hint)


def test_a_broken_helper_does_not_hide_a_plain_entry(home: Path, tmp_path: Path) -> None:
    env = helped(home, tmp_path, {"credsStore": "gone", "auths": {"r.example": entry("plain")}})
    assert user_for(env, "r.example/a") == "plain"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": ["x"]}', '{"auths": {"r": {"auth": "*"}}}']
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"auth\.json"):
        user_for({"HOME": "/nonexistent", "REGISTRY_AUTH_FILE": str(path)}, "r.example/a")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_was_named_must_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot read registry credentials"):
        user_for(
            {"HOME": "/nonexistent", "REGISTRY_AUTH_FILE": str(tmp_path / name)}, "r.example/a"
        )


def test_basic_credentials_carry_any_text_but_never_a_second_header() -> None:
    assert base64.b64decode(Credential("ü", "p:ß").basic()[6:]).decode() == "ü:p:ß"
    for bad in (Credential("a:b", "c"), Credential("a", "b\r\nX: y")):
        with pytest.raises(InputError, match="cannot be sent"):
            bad.basic()


def test_a_credential_does_not_show_its_secrets() -> None:
    shown = repr(Credential("user", "s3cret", "id3ntity", "t0ken", origin="file"))
    assert "file" in shown
    assert not any(secret in shown for secret in ("s3cret", "id3ntity", "t0ken"))
