"""Where trust comes from: variables, files, a TUF repository on a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tuf_repository import TufRepository
from conforma.errors import InputError, TrustRootUnavailable
from conforma.trust.root import TrustRoot
from conforma.trust.root_sources import RootSource
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.tuf_client import Repository, directory_name, initialize
from tests.trust.lab import Lab, check_bundle, check_layer


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture
def tuf(lab: Lab, tmp_path: Path) -> Iterator[TufRepository]:
    with TufRepository(tmp_path / "served", trusted_root(lab.fulcio, lab.log)) as served:
        yield served


def environment(tuf: TufRepository, tmp_path: Path, **more: str) -> dict[str, str]:
    root = tmp_path / "root.json"
    root.write_bytes(tuf.first_root)
    return {
        "TUF_ROOT": str(tmp_path / "cache"),
        "TUF_MIRROR": tuf.url,
        "TUF_ROOT_JSON": str(root),
        **more,
    }


def check_all(lab: Lab, root: TrustRoot) -> None:
    """Key and keyless evidence of the lab verifies with ``root``."""
    changes = {name: getattr(root, name) for name in ("logs", "ct_logs", "authorities")}
    leaf = lab.fulcio.issue()
    check_layer(lab, lab.signature(), lab.by_key(), **changes)
    check_layer(lab, lab.signature(leaf=leaf), lab.keyless(), **changes)
    check_bundle(lab, lab.bundle(leaf=leaf), lab.keyless(), **changes)


def test_a_trusted_root_file_is_all_it_takes(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trusted_root.json"
    file.write_bytes(trusted_root(lab.fulcio, lab.log))
    root = RootSource(lab.keyless(), {"CONFORMA_TRUSTED_ROOT": str(file)})()
    assert not root.individual
    check_all(lab, root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOF"),
        (b"[]", "not a Sigstore trusted root"),
        (b"{}", "not a Sigstore trusted root: 'mediaType'"),
        (b'{"mediaType": "text/plain"}', "unexpected media type 'text/plain'"),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json", "tlogs": [{}]}',
            "not a Sigstore trusted root",
        ),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json", "tlogs": 1}',
            "not a Sigstore trusted root",
        ),
        (
            b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json", "certificateAuthorities": [{"certChain": {"certificates": []}}]}',
            "an authority without a certificate",
        ),
    ],
)
def test_what_is_no_trusted_root(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "trusted_root.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        RootSource(TrustPolicy(), {"CONFORMA_TRUSTED_ROOT": str(file)})()
    assert reason in refusal.value.message
    assert str(file) in refusal.value.message


def test_a_log_key_alone_suffices_for_key_mode(lab: Lab, tmp_path: Path) -> None:
    key = tmp_path / "rekor.pub"
    from acceptance.private_sigstore.fulcio import public_pem

    key.write_text(public_pem(lab.log.key))
    environ = {"SIGSTORE_REKOR_PUBLIC_KEY": str(key), "TUF_MIRROR": "http://127.0.0.1:9"}
    root = RootSource(lab.by_key(), environ)()
    assert root.individual
    check_layer(lab, lab.signature(), lab.by_key(), logs=root.logs, individual=True)
    assert (
        RootSource(lab.by_key(ignore_rekor=True), {"TUF_MIRROR": "http://127.0.0.1:9"})()
        == TrustRoot()
    )


def test_keyless_from_single_files(lab: Lab, tmp_path: Path) -> None:
    from acceptance.private_sigstore.fulcio import public_pem

    leaf = lab.fulcio.issue()
    files = {
        "SIGSTORE_REKOR_PUBLIC_KEY": public_pem(lab.log.key),
        "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": public_pem(lab.fulcio.ct_log.key),
        "SIGSTORE_ROOT_FILE": leaf.chain_pem,
    }
    environ = {"TUF_MIRROR": "http://127.0.0.1:9"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        environ[name] = str(tmp_path / name)
    check_all(lab, RootSource(lab.keyless(), environ)())


@pytest.mark.parametrize("name", ["SIGSTORE_REKOR_PUBLIC_KEY", "SIGSTORE_ROOT_FILE"])
def test_variables_that_lead_to_nothing_are_named(lab: Lab, tmp_path: Path, name: str) -> None:
    environ = {
        "SIGSTORE_REKOR_PUBLIC_KEY": str(tmp_path / "x"),
        "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": str(tmp_path / "x"),
        "SIGSTORE_ROOT_FILE": str(tmp_path / "x"),
        name: str(tmp_path / "x"),
    }
    with pytest.raises(InputError, match=r"SIGSTORE_REKOR_PUBLIC_KEY: .*No such file"):
        RootSource(lab.keyless(), environ)()
    (tmp_path / "x").write_text("no key")
    with pytest.raises(InputError, match=r"PEM decoding failed"):
        RootSource(lab.keyless(), environ)()


def test_what_is_not_named_comes_from_tuf(lab: Lab, tuf: TufRepository, tmp_path: Path) -> None:
    from acceptance.private_sigstore.fulcio import public_pem

    key = tmp_path / "rekor.pub"
    key.write_text(public_pem(lab.log.key))
    environ = environment(tuf, tmp_path, SIGSTORE_REKOR_PUBLIC_KEY=str(key))
    check_all(lab, RootSource(lab.keyless(), environ)())


def test_the_repository_is_asked_and_remembered(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    environ = environment(tuf, tmp_path)
    source = RootSource(lab.keyless(), environ)
    check_all(lab, source())
    again = len(tuf.requests)
    source()
    # The second time only what could have changed is asked for.
    assert [path.split("/")[-1] for path in tuf.requests[again:]] == [
        "2.root.json",
        "timestamp.json",
    ]
    tuf.publish(trusted_root(Lab().fulcio, lab.log))
    root = source()
    assert root.authorities[0].certificates != lab.fulcio.chain


def test_an_unreachable_mirror_leaves_the_verified_copy(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    environ = environment(tuf, tmp_path)
    RootSource(lab.keyless(), environ)()
    tuf.close()
    check_all(lab, RootSource(lab.keyless(), environ)())
    check_all(lab, RootSource(lab.keyless(), environ, offline=True)())
    # Damage on disk is noticed: the copy is verified, not believed.
    cache = Path(environ["TUF_ROOT"]) / directory_name(environ["TUF_MIRROR"])
    for target in (cache / "targets").iterdir():
        target.write_bytes(target.read_bytes().replace(b"private", b"privAte"))
    with pytest.raises(TrustRootUnavailable):
        RootSource(lab.keyless(), environ, offline=True)()


def test_offline_without_a_copy_is_no_verdict(lab: Lab, tuf: TufRepository, tmp_path: Path) -> None:
    environ = environment(tuf, tmp_path)
    asked = len(tuf.requests)
    with pytest.raises(TrustRootUnavailable, match=r"is not on disk"):
        RootSource(lab.keyless(), environ, offline=True)()
    assert len(tuf.requests) == asked


def test_expired_metadata_is_refused_with_both_clocks(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    environ = environment(tuf, tmp_path)
    RootSource(lab.keyless(), environ)()
    tuf.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    tuf.publish(trusted_root(lab.fulcio, lab.log))
    with pytest.raises(TrustRootUnavailable) as refusal:
        RootSource(lab.keyless(), environ)()
    assert "expired" in refusal.value.message
    assert "the clock of this machine says 2" in refusal.value.message
    assert refusal.value.exit_status == 3


def test_rolled_back_metadata_is_refused(lab: Lab, tuf: TufRepository, tmp_path: Path) -> None:
    environ = environment(tuf, tmp_path)
    tuf.publish(trusted_root(lab.fulcio, lab.log))
    RootSource(lab.keyless(), environ)()
    tuf.publish(trusted_root(lab.fulcio, lab.log), version=1)
    with pytest.raises(TrustRootUnavailable, match=r"version"):
        RootSource(lab.keyless(), environ)()


def test_metadata_of_strangers_is_refused_and_rotation_is_followed(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    environ = environment(tuf, tmp_path)
    tuf.rotate("timestamp", "root")
    tuf.publish(trusted_root(lab.fulcio, lab.log))
    check_all(lab, RootSource(lab.keyless(), environ)())
    from securesystemslib.signer import CryptoSigner

    tuf.signers["timestamp"] = CryptoSigner.generate_ecdsa()
    tuf.publish(trusted_root(lab.fulcio, lab.log))
    with pytest.raises(TrustRootUnavailable, match=r"signed"):
        RootSource(lab.keyless(), environ)()


def test_a_missing_target_is_named(lab: Lab, tmp_path: Path) -> None:
    with (
        TufRepository(tmp_path / "served", b"{}", name="other.json") as tuf,
        pytest.raises(TrustRootUnavailable, match=r"there is no target trusted_root\.json"),
    ):
        RootSource(lab.keyless(), environment(tuf, tmp_path))()


def test_initialize_makes_a_mirror_the_default(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    environ = {"TUF_ROOT": str(tmp_path / "cache")}
    content = initialize(environ, tuf.url, tuf.first_root)
    assert content == trusted_root(lab.fulcio, lab.log)
    assert json.loads((tmp_path / "cache" / "remote.json").read_bytes()) == {"mirror": tuf.url}
    check_all(lab, RootSource(lab.keyless(), environ)())


def test_initialize_changes_nothing_for_a_mirror_that_does_not_verify(
    tuf: TufRepository, tmp_path: Path
) -> None:
    environ = {"TUF_ROOT": str(tmp_path / "cache")}
    with (
        TufRepository(tmp_path / "other", b"{}") as stranger,
        pytest.raises(TrustRootUnavailable),
    ):
        initialize(environ, tuf.url, stranger.first_root)
    assert not (tmp_path / "cache" / "remote.json").exists()
    with pytest.raises(InputError, match=r"^could not find cached root\.json$"):
        initialize(environ, "http://127.0.0.1:9", None)


def test_a_directory_that_cannot_be_written_is_copied(
    lab: Lab, tuf: TufRepository, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the directory should be")
    environ = environment(tuf, tmp_path, TUF_ROOT=str(blocked))
    check_all(lab, RootSource(lab.keyless(), environ)())


def test_parallel_first_runs_do_not_fight(lab: Lab, tuf: TufRepository, tmp_path: Path) -> None:
    repository = Repository.from_environment(environment(tuf, tmp_path))
    barrier, results = threading.Barrier(6), []

    def run() -> None:
        barrier.wait()
        results.append(repository.target())

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {trusted_root(lab.fulcio, lab.log)}
    targets = [path for path in tuf.requests if path.endswith(".trusted_root.json")]
    assert len(targets) == 1


def test_the_public_root_is_built_in() -> None:
    repository = Repository.from_environment({"HOME": "/nonexistent"})
    assert json.loads(repository.initial_root)["signed"]["_type"] == "root"
    assert repository.mirror == "https://tuf-repo-cdn.sigstore.dev"
