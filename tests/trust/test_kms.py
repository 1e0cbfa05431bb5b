"""Keys of a key management service, through a real plugin program on the PATH."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from acceptance.private_sigstore.fulcio import public_pem
from conforma.errors import ConformaError, InputError, TrustRootUnavailable
from conforma.trust.keys import PublicKey
from tests.trust.lab import P256

PEM = public_pem(P256)
GOOD = json.dumps({"publicKey": {"publicKeyPEM": b64encode(PEM.encode()).decode()}})


def plugin(directory: Path, answer: str, status: int = 0, name: str = "awskms") -> dict[str, str]:
    """A PATH with a plugin that writes its arguments down and prints ``answer``."""
    program = directory / f"sigstore-kms-{name}"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(directory / 'arguments')!r}, 'w').write(repr(sys.argv[1:]))\n"
        f"sys.stdout.write({answer!r})\nsys.exit({status})\n"
    )
    program.chmod(0o755)
    return {"PATH": str(directory)}


@pytest.mark.parametrize(
    ("reference", "name"),
    [("awskms:///alias/release", "awskms"), ("my-hsm://slot/1", "my-hsm")],
)
@pytest.mark.parametrize("status", [0, 3])
def test_a_plugin_answers_for_its_keys(
    tmp_path: Path, reference: str, name: str, status: int
) -> None:
    environ = plugin(tmp_path, GOOD, status, name)
    assert PublicKey.load(reference, environ=environ).pem == PEM
    version, document = eval((tmp_path / "arguments").read_text())
    assert version == "v1"
    asked = json.loads(document)
    assert asked["methodName"] == "publicKey"
    assert asked["initOptions"]["protocolVersion"] == "v1"
    assert asked["initOptions"]["keyResourceID"] == reference.partition("://")[2]
    assert asked["initOptions"]["hashFunc"] == 5
    assert asked["publicKey"]["publicKeyOptions"]["rpcOptions"]["keyVersion"] == ""


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ('{"errorMessage": "no such key"}', InputError, "plugin returned error: no such key"),
        ("", TrustRootUnavailable, "parsing plugin response: "),
        ("[]", TrustRootUnavailable, "parsing plugin response: not an object"),
        ("{}", TrustRootUnavailable, "parsing plugin response: 'publicKey' (exit status 0)"),
        ('{"publicKey": {"publicKeyPEM": "?"}}', TrustRootUnavailable, "parsing plugin response"),
        ('{"publicKey": {"publicKeyPEM": "eHg="}}', InputError, "PEM decoding failed"),
    ],
)
def test_what_a_plugin_says_instead(
    tmp_path: Path, answer: str, kind: type[ConformaError], text: str
) -> None:
    environ = plugin(tmp_path, answer)
    with pytest.raises(kind) as refusal:
        PublicKey.load("awskms://alias/x", environ=environ)
    assert text in refusal.value.message


def test_a_plugin_that_cannot_be_run(tmp_path: Path) -> None:
    environ = plugin(tmp_path, GOOD)
    (tmp_path / "sigstore-kms-awskms").write_text("#!/nowhere/at/all\n")
    with pytest.raises(TrustRootUnavailable, match="error executing plugin program"):
        PublicKey.load("awskms://alias/x", environ=environ)


def test_without_its_plugin_a_service_is_unknown_and_the_hint_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        PublicKey.load("hashivault://release", environ={"PATH": str(tmp_path)})
    assert refusal.value.message == "loading URL: unrecognized scheme: hashivault://"
    assert "sigstore-kms-hashivault" in str(refusal.value.hint)
    assert refusal.value.exit_status == 1


@pytest.mark.parametrize("name", ["env", "http", "https", "k8s"])
def test_no_plugin_takes_the_place_of_what_we_know(tmp_path: Path, name: str) -> None:
    environ = plugin(tmp_path, GOOD, name=name)
    with pytest.raises(InputError):
        PublicKey.load(f"{name}://a/b/c", environ=environ)
    assert not (tmp_path / "arguments").exists()
