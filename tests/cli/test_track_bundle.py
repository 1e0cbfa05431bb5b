"""``conforma track bundle``: which versions of Tekton tasks are trusted, and until when."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.cli.root import run
from conforma.oci import media_types
from conforma.oci.manifest import ImageConfig, Manifest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.policy.artifact import Artifacts
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Image, Member, artifact_of, image_of, index_of, layer_of
from tests.cli.shop import Outcome, Shop
from tests.policy.services import Service, commit, git_backend, repository, serving

QUICK = ("--retry-max-retry", "0")
DATA = "application/vnd.cncf.openpolicyagent.data.layer.v1+json"
DATED = r'expires_on: "\d{4}-\d\d-\d\dT00:00:00Z"'


def track(shop: Shop, *args: str, word: str = "bundle") -> Outcome:
    shop.capture.readouterr()
    status = run(["track", word, *QUICK, *args])
    captured = shop.capture.readouterr()
    return Outcome(status, captured.out, captured.err)


def bundle_of(*objects: tuple[str, str]) -> Image:
    """A bundle of objects given as kind and content."""
    layers = []
    for kind, content in objects:
        layer = layer_of([Member(kind, content.encode())], docker=True)
        notes: Mapping[str, str] = {
            "dev.tekton.image.apiVersion": "v1",
            "dev.tekton.image.kind": kind,
            "dev.tekton.image.name": content,
        }
        layers.append(replace(layer, annotations=notes if kind else {}))
    return image_of(layers, docker=True)


def put(shop: Shop, *objects: tuple[str, str], tag: str = "1.0") -> tuple[str, str]:
    """Push a bundle; its reference and digest."""
    digest = bundle_of(*(objects or (("task", "build"),))).put(shop.server.store, "tasks", tag)
    return f"{shop.server.host}/tasks:{tag}", str(digest)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(RegistryOptions(), Cancellation()) as opened:
        yield opened


def data_in(shop: Shop, name: str) -> str:
    """The content of a data image, as the registry has it."""
    with Registry(RegistryOptions(), Cancellation()) as registry:
        reference = Reference.parse(f"{shop.server.host}/{name}")
        manifest = registry.manifest(reference)
        assert isinstance(manifest, Manifest)
        (layer,) = manifest.layers
        return registry.read_blob(reference, layer).decode()


@pytest.mark.parametrize("word", ["bundle", "tekton-task"])
def test_the_digest_of_a_tag_is_recorded(shop: Shop, word: str) -> None:
    reference, digest = put(shop, ("task", "build"), ("pipeline", "p"))
    done = track(shop, "--bundle", reference, word=word)
    assert done == Outcome(
        0, f"---\ntrusted_tasks:\n  oci://{reference}:\n    - ref: {digest}\n", ""
    )


def test_bundles_of_pipelines_are_passed_over(shop: Shop) -> None:
    reference, _ = put(shop, ("pipeline", "p"))
    assert track(shop, "--bundle", reference) == Outcome(0, "---\n{}\n", "")


def test_a_bundle_for_platforms_is_recorded_by_its_index(shop: Shop) -> None:
    index = index_of([bundle_of(("task", "build"))])
    digest = index.put(shop.server.store, "tasks", "1.0")
    done = track(shop, "--bundle", f"{shop.server.host}/tasks:1.0")
    assert f"- ref: {digest}\n" in done.out


def test_a_newer_version_lets_the_one_before_expire(shop: Shop, tmp_path: Path) -> None:
    reference, old = put(shop)
    file = tmp_path / "trusted.yaml"
    assert track(shop, "-b", reference, "-o", str(file)) == Outcome(0, "", "")
    _, new = put(shop, ("task", "build it well"))
    done = track(shop, "--input", str(file), "--freshen")
    assert re.fullmatch(
        f"---\ntrusted_tasks:\n  oci://{reference}:\n    - ref: {new}\n    - {DATED}\n"
        f"      ref: {old}\n",
        done.out,
    )
    assert new not in file.read_text()


def test_freshening_leaves_what_has_no_tag(shop: Shop, tmp_path: Path) -> None:
    reference, digest = put(shop)
    name = reference.rpartition(":")[0]
    file = tmp_path / "trusted.yaml"
    assert track(shop, "-b", f"{name}@{digest}", "-o", str(file)).status == 0
    done = track(shop, "--input", str(file), "--freshen")
    assert done == Outcome(0, f"---\ntrusted_tasks:\n  oci://{name}:\n    - ref: {digest}\n", "")


def test_replacing_writes_the_input_and_the_output(shop: Shop, tmp_path: Path) -> None:
    reference, digest = put(shop)
    file, copy = tmp_path / "trusted.yaml", tmp_path / "copy.yaml"
    file.write_text("# nothing yet\n")
    file.chmod(0o640)
    with file.open() as before:
        done = track(shop, "-b", reference, "-i", str(file), "-o", str(copy), "--replace")
        assert done == Outcome(0, "", "")
        # Whoever reads it meanwhile reads the old document to its end.
        assert before.read() == "# nothing yet\n"
    assert digest in file.read_text()
    assert file.read_text() == copy.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.yaml", "trusted.yaml"]


def test_the_same_place_may_be_read_and_written(shop: Shop, tmp_path: Path) -> None:
    reference, digest = put(shop)
    file = tmp_path / "trusted.yaml"
    file.write_text("")
    other_name = os.path.relpath(file)
    done = track(shop, "-b", reference, "-i", str(file), "-o", other_name, "--replace")
    assert done == Outcome(0, "", "")
    assert digest in file.read_text()


def test_expired_versions_go_unless_told_otherwise(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "trusted.yaml"
    file.write_text(
        "trusted_tasks:\n  g:\n    - ref: b\n"
        "    - {ref: a, expires_on: 2001-01-01T00:00:00Z}\n  h:\n    - ref: c\n    - ref: d\n"
    )
    assert "ref: a" not in track(shop, "-i", str(file)).out
    assert "ref: a" in track(shop, "-i", str(file), "--prune=false").out
    with_no_days = track(shop, "-i", str(file), "--in-effect-days=36500").out
    assert re.search(r'expires_on: "21\d\d-[^\n]*\n      ref: d\n', with_no_days)


def test_a_pushed_document_is_data_that_policies_pull(
    shop: Shop, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, digest = put(shop)
    monkeypatch.setattr("sys.argv", ["conforma", "track", "bundle", "--bundle=x"])
    name = f"{shop.server.host}/trusted:latest"
    assert track(shop, "-b", reference, "--output", f"oci:{name}") == Outcome(0, "", "")
    Artifacts(registry, Cancellation()).fetch(f"oci::{name}", tmp_path / "pulled")
    pulled = tmp_path / "pulled" / "data" / "data" / "trusted_tekton_tasks.yml"
    assert pulled.read_text() == f"---\ntrusted_tasks:\n  oci://{reference}:\n    - ref: {digest}\n"
    pinned = registry.resolve(Reference.parse(name))
    manifest = registry.manifest(pinned)
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == media_types.OCI_MANIFEST
    assert [layer.media_type for layer in manifest.layers] == [DATA]
    config: ImageConfig = registry.image_config(pinned, manifest)
    assert config.document["history"][0]["created_by"] == "conforma track bundle --bundle=x"
    assert [diff.hex for diff in config.diff_ids] == [manifest.layers[0].digest.hex]


def test_a_document_in_a_registry_is_added_to(shop: Shop) -> None:
    first, one = put(shop)
    second, two = put(shop, ("task", "test"), tag="2.0")
    name = f"{shop.server.host}/trusted:latest"
    track(shop, "-b", first, "-o", f"oci:{name}")
    done = track(shop, "-b", second, "-i", f"oci://{name}", "--replace")
    assert done.status == 0
    assert data_in(shop, "trusted:latest") == done.out
    assert one in done.out
    assert two in done.out


@pytest.fixture
def tasks(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A server of the git repository ``tasks.git``."""
    root = tmp_path / "root"
    repository(root / "tasks.git", {"build.yaml": "1", "test.yaml": "1"})
    with serving(git_backend(root), tmp_path) as service:
        monkeypatch.setenv("SSL_CERT_FILE", str(service.ca_file))
        yield service


def test_files_in_git_are_recorded_without_asking(shop: Shop, tmp_path: Path) -> None:
    group = "git+https://nowhere.invalid/r.git//a/b.yaml"
    file = tmp_path / "trusted.yaml"
    track(shop, "--git", f"{group}@3672e45", "-o", str(file))
    done = track(shop, "--git", f"{group}@f0cacc1af00d", "-i", str(file))
    assert re.fullmatch(
        f"---\ntrusted_tasks:\n  {re.escape(group)}:\n    - ref: f0cacc1af00d\n    - {DATED}\n"
        '      ref: "3672e45"\n',
        done.out,
    )


def test_freshening_finds_the_last_change_of_each_file(
    shop: Shop, tasks: Service, tmp_path: Path
) -> None:
    url = f"git+https://{tasks.host}/tasks.git"
    build = commit(tmp_path / "root" / "tasks.git", {"build.yaml": "2"})
    test = commit(tmp_path / "root" / "tasks.git", {"test.yaml": "2"})
    file = tmp_path / "trusted.yaml"
    file.write_text(f"trusted_tasks:\n  {url}//build.yaml:\n    - ref: abc\n")
    done = track(shop, "-i", str(file), "-g", f"{url}//test.yaml", "--freshen")
    assert re.fullmatch(
        f"---\ntrusted_tasks:\n  {re.escape(url)}//build.yaml:\n    - ref: {build}\n    - {DATED}\n"
        f"      ref: abc\n  {re.escape(url)}//test.yaml:\n    - ref: {test}\n",
        done.out,
    )
    asked = [line for line in tasks.log if line.startswith("GET")]
    assert len(asked) == 1, "one repository is fetched once"


def test_a_file_that_a_repository_lacks_is_named(shop: Shop, tasks: Service) -> None:
    for path in ("gone.yaml", "../gone.yaml"):
        done = track(shop, "-g", f"git+https://{tasks.host}/tasks.git//{path}", "--freshen")
        assert (done.status, done.out) == (1, "")
        assert f'Error: unable to find any commits for path: "{path}"\n' in done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "at least one of the flags in the group [bundle git input] is required"),
        (("-b", "nowhere/tasks"), "could not parse reference: nowhere/tasks: registry, repository"),
        (("-b", "Not A Reference"), "could not parse reference: Not A Reference"),
        (("-g", "git+https://h/r.git//a"), 'expected "git+https://h/r.git//a" to contain the rev'),
        (("-g", "git+http://h/r.git//a", "--freshen"), "insecure source: http://h/r.git"),
        (("-i", "no/such/file"), "open no/such/file: no such file or directory"),
        (("-i", "oci:"), "could not parse reference"),
        (("-i", "oci:oci:layout"), "oci:oci:layout: a document is in a file or a registry"),
        (("-b", "h.invalid/t:1", "--in-effect-days=-1"), "--in-effect-days: -1 is less than no"),
        (("-b", "h.invalid/t:1", "--in-effect-days=x"), "--in-effect-days"),
        (("-b", "h.invalid/t:1", "stray"), 'unknown command "stray"'),
    ],
)
def test_what_cannot_be_used_is_said(shop: Shop, args: tuple[str, ...], message: str) -> None:
    done = track(shop, *args)
    assert (done.status, done.out) == (1, "")
    assert message in done.err


def test_every_bad_bundle_reference_is_told(shop: Shop) -> None:
    good, _ = put(shop)
    done = track(shop, "-b", f"h.invalid/one@sha256:123,{good}", "-b", "h.invalid/two")
    assert (done.status, done.out) == (1, "")
    first, second = done.err.splitlines()[:2]
    assert first.startswith("Error: could not parse reference: h.invalid/one@sha256:123: ")
    assert second.startswith("could not parse reference: h.invalid/two: ")


def test_what_is_not_there_or_no_bundle_is_an_error(shop: Shop, tmp_path: Path) -> None:
    good, _ = put(shop)
    put(shop, ("", "just an image"), tag="image")
    file = tmp_path / "trusted.yaml"
    file.write_text("trusted_tasks: {}\n")
    for tag, message in (("gone", "404 Not Found"), ("image", "the image is no Tekton bundle")):
        bad = f"{shop.server.host}/tasks:{tag}"
        done = track(shop, "-b", f"{good},{bad}", "-i", str(file), "--replace")
        assert (done.status, done.out) == (1, "")
        assert f"Error: {bad}" in done.err
        assert message in done.err
        assert file.read_text() == "trusted_tasks: {}\n"


def test_a_broken_document_is_left_as_it_is(shop: Shop, tmp_path: Path) -> None:
    reference, _ = put(shop)
    file = tmp_path / "trusted.yaml"
    file.write_text("trusted_tasks: [")
    done = track(shop, "-b", reference, "-i", str(file), "--replace")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: {file}: error converting YAML to JSON: yaml: ")
    assert file.read_text() == "trusted_tasks: ["


@pytest.mark.parametrize("layers", [0, 2])
def test_an_image_without_one_document_is_left_as_it_is(shop: Shop, layers: int) -> None:
    reference, _ = put(shop)
    kinds = [DATA] * layers or [media_types.OCTETS]
    image = artifact_of("a/b", [(b"{}", kind, {}) for kind in kinds])
    digest = image.put(shop.server.store, "trusted", "v1")
    name = f"{shop.server.host}/trusted:v1"
    done = track(shop, "-b", reference, "-i", f"oci:{name}", "--replace")
    assert (done.status, done.out) == (1, "")
    assert f"{name}: the image has {layers} layers of policy data instead of one" in done.err
    found = shop.server.store.repository("trusted").find("v1")
    assert found is not None
    assert found[0] == digest


def test_a_registry_that_does_not_answer_loses_nothing(shop: Shop, tmp_path: Path) -> None:
    reference, _ = put(shop)
    file = tmp_path / "trusted.yaml"
    file.write_text(f"trusted_tasks:\n  oci://{reference}:\n    - ref: abc\n")
    before = file.read_text()
    shop.server.faults.add(Fault(status=503), path="/v2/tasks/.*")
    done = track(shop, "-i", str(file), "--freshen", "--replace")
    assert (done.status, done.out) == (3, "")
    assert shop.server.host in done.err
    assert file.read_text() == before


def test_a_push_that_fails_leaves_the_tag(shop: Shop) -> None:
    reference, digest = put(shop)
    name = f"oci:{shop.server.host}/trusted:latest"
    assert track(shop, "-b", reference, "-o", name).status == 0
    before = data_in(shop, "trusted:latest")
    _, new = put(shop, ("task", "another"))
    assert new != digest
    shop.server.faults.add(Fault(status=503), method="PUT", path="/v2/trusted/manifests/.*")
    assert track(shop, "-i", name, "--freshen", "--output", name).status == 3
    shop.server.faults.clear()
    assert data_in(shop, "trusted:latest") == before


@contextmanager
def meanwhile(shop: Shop, *args: str) -> Iterator[list[int]]:
    """While inside, the program waits for a bundle; its exit status is in the list afterwards."""
    reference, _ = put(shop)
    gate = Gate()
    shop.server.faults.add(Fault(hang=gate), path="/v2/tasks/manifests/.*")
    statuses: list[int] = []
    words = ["track", "bundle", "-b", reference, *args, *QUICK]
    thread = threading.Thread(target=lambda: statuses.append(run(words)))
    thread.start()
    try:
        gate.wait_reached()
        yield statuses
    finally:
        gate.release()
        thread.join(30)


def test_what_somebody_else_wrote_meanwhile_is_not_lost(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "trusted.yaml"
    file.write_text("trusted_tasks: {}\n")
    with meanwhile(shop, "-i", str(file), "--replace") as statuses:
        file.write_text("trusted_tasks: {g: [{ref: theirs}]}\n")
    assert statuses == [1]
    assert file.read_text() == "trusted_tasks: {g: [{ref: theirs}]}\n"
    assert f"{file}: changed by somebody else meanwhile" in shop.capture.readouterr().err


def test_what_somebody_else_pushed_meanwhile_is_not_lost(shop: Shop) -> None:
    def push(content: bytes) -> None:
        artifact_of("a/b", [(content, DATA, {})]).put(shop.server.store, "trusted", "v1")

    push(b"{}")
    name = f"oci:{shop.server.host}/trusted:v1"
    with meanwhile(shop, "-i", name, "--replace") as statuses:
        push(b"trusted_tasks: {g: [{ref: theirs}]}")
    assert statuses == [1]
    assert data_in(shop, "trusted:v1") == "trusted_tasks: {g: [{ref: theirs}]}"
    assert f"{name}: changed by somebody else meanwhile" in shop.capture.readouterr().err
