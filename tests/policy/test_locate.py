"""Every form of --policy, from text to configuration, and the cluster behind some of them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    BadPolicyConfig,
    ConformaError,
    InputError,
    PolicyError,
    SourceUnavailable,
)
from conforma.policy.config import PolicyConfig
from conforma.policy.kube import Kubernetes
from conforma.policy.locate import load_policy, read_content
from conforma.policy.source import Sources
from conforma.policy.workspace import prepare
from tests.policy.services import (
    Service,
    files_at,
    git,
    git_backend,
    kubeconfig,
    kubernetes,
    repository,
    serving,
)

API = "/apis/appstudio.redhat.com/v1alpha1/namespaces"


def no_registry() -> Any:
    raise AssertionError("no registry is needed")


def sources_believing(service: Service | None = None) -> Sources:
    environment = {k: v for k, v in os.environ.items() if k != "EC_DEBUG"}
    if service is not None:
        environment |= {"SSL_CERT_FILE": str(service.ca_file)}
        environment.pop("SSL_CERT_DIR", None)
    return Sources(no_registry, Cancellation(), environment=environment)


@pytest.fixture
def sources() -> Iterator[Sources]:
    with sources_believing() as sources:
        yield sources


@pytest.fixture
def nowhere(tmp_path: Path) -> Kubernetes:
    return Kubernetes(environment={"HOME": str(tmp_path)})


def test_inline_json_is_used_as_it_is(sources: Sources, nowhere: Kubernetes) -> None:
    config = load_policy('{"sources": [{"policy": ["github.com/o/r"]}]}', sources, nowhere)
    assert config.urls == ("github.com/o/r",)


def test_inline_yaml_that_mentions_a_git_host_is_no_url(
    sources: Sources, nowhere: Kubernetes
) -> None:
    config = load_policy("sources:\n- policy:\n  - github.com/o/r\n", sources, nowhere)
    assert config.urls == ("github.com/o/r",)


def test_nothing_is_the_empty_configuration(sources: Sources, nowhere: Kubernetes) -> None:
    assert load_policy("", sources, nowhere) == PolicyConfig()


@pytest.mark.parametrize("name", ["policy.json", "my.yaml", "x.yml"])
@pytest.mark.parametrize("prefix", ["", "file://", "file::"])
def test_a_local_file_is_read(
    sources: Sources, nowhere: Kubernetes, tmp_path: Path, name: str, prefix: str
) -> None:
    (tmp_path / name).write_text("publicKey: k")
    assert load_policy(f"{prefix}{tmp_path / name}", sources, nowhere).public_key == "k"


def test_an_empty_file_is_refused(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("")
    with pytest.raises(BadPolicyConfig) as caught:
        read_content(str(tmp_path / "policy.yaml"), sources)
    assert caught.value.message == f"file {tmp_path}/policy.yaml is empty"


def test_a_missing_file_is_named(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(BadPolicyConfig) as caught:
        read_content(f"{tmp_path}/policy.yaml", sources)
    assert caught.value.message == f"open {tmp_path}/policy.yaml: no such file or directory"


def test_a_file_with_another_suffix_is_not_read(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "policy.txt").write_text("publicKey: k")
    assert read_content(f"{tmp_path}/policy.txt", sources) == f"{tmp_path}/policy.txt"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mypolicy.yaml", "there is no file mypolicy.yaml"),
        ("rules", "rules is a directory and not a configuration"),
        ("policy.txt", "the file policy.txt does not end in .json, .yaml or .yml"),
    ],
)
def test_what_is_no_configuration_on_disk_is_hinted_at(
    name: str,
    reason: str,
    sources: Sources,
    nowhere: Kubernetes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "policy.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_policy(name, sources, nowhere)
    assert caught.value.message == (
        "cannot initialize Kubernetes client: invalid configuration: no configuration has been "
        "provided, try setting KUBERNETES_MASTER environment variable"
    )
    assert caught.value.hint == f"{reason}, so it was taken for the name of a policy in a cluster"


@pytest.mark.parametrize(
    ("files", "key"),
    [
        ({"policy.yaml": "publicKey: a", ".ec/policy.yaml": "publicKey: b"}, "b"),
        ({"policy.yml": "publicKey: a", "policy.json": '{"publicKey": "c"}'}, "c"),
        ({".ec/policy.yml": "publicKey: a", ".ec/policy.json": '{"publicKey": "d"}'}, "d"),
    ],
)
def test_a_repository_holds_its_configuration_in_a_known_place(
    sources: Sources, nowhere: Kubernetes, tmp_path: Path, files: dict[str, str], key: str
) -> None:
    upstream = repository(tmp_path / "r", files)
    assert load_policy(f"git::{upstream}", sources, nowhere).public_key == key


def test_an_empty_configuration_in_a_repository_is_refused(
    sources: Sources, tmp_path: Path
) -> None:
    upstream = repository(tmp_path / "r", {".ec/policy.yaml": "", "policy.yaml": "publicKey: a"})
    with pytest.raises(BadPolicyConfig) as caught:
        read_content(f"git::{upstream}", sources)
    commit = git(upstream, "rev-parse", "HEAD")
    assert caught.value.message == (
        f"file .ec/policy.yaml of git::{upstream}?ref={commit} is empty"
    )


def test_a_subdirectory_of_a_repository_over_https(nowhere: Kubernetes, tmp_path: Path) -> None:
    repository(tmp_path / "root" / "o" / "r.git", {"deep/er/policy.yaml": "publicKey: k"})
    with (
        serving(git_backend(tmp_path / "root"), tmp_path) as server,
        sources_believing(server) as sources,
    ):
        text = f"git::https://{server.host}/o/r//deep/er?ref=main"
        assert load_policy(text, sources, nowhere).public_key == "k"


def test_a_repository_without_configuration_is_named_with_its_commit(
    sources: Sources, tmp_path: Path
) -> None:
    upstream = repository(tmp_path / "r", {"x": "y"})
    with pytest.raises(BadPolicyConfig) as caught:
        read_content(f"git::{upstream}", sources)
    commit = git(upstream, "rev-parse", "HEAD")
    assert caught.value.message == f"no suitable config file found at git::{upstream}?ref={commit}"


def test_https_urls_that_end_in_the_name_of_a_configuration(
    nowhere: Kubernetes, tmp_path: Path
) -> None:
    served = {"/a/policy.yaml": b"publicKey: k", "/a/other.yaml": b"publicKey: k"}
    with (
        serving(files_at(served), tmp_path) as server,
        sources_believing(server) as sources,
    ):
        assert (
            load_policy(f"https://{server.host}/a/policy.yaml", sources, nowhere).public_key == "k"
        )
        with pytest.raises(BadPolicyConfig) as caught:
            read_content(f"https://{server.host}/a/other.yaml", sources)
    assert (
        caught.value.message == f"no suitable config file found at http::{server.host}/a/other.yaml"
    )


def test_plain_http_is_refused(sources: Sources) -> None:
    with pytest.raises(PolicyError, match="attempting to download from insecure source: http://h/"):
        read_content("http://h/policy.yaml", sources)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Service]:
    secret = {
        name: base64.b64encode(name.encode()).decode() for name in ("cosign.pub", "cosign.key")
    }
    objects = {
        f"{API}/default/enterprisecontractpolicies/ec": {"spec": {"publicKey": "default"}},
        f"{API}/mine/enterprisecontractpolicies/ec": {"spec": {"publicKey": "mine", "newer": [1]}},
        f"{API}/mine/enterprisecontractpolicies/bad": {"spec": {"sources": "x"}},
        f"{API}/mine/enterprisecontractpolicies/empty": {"metadata": {"name": "empty"}},
        f"{API}/mine/enterprisecontractpolicies/denied": 403,
        f"{API}/mine/enterprisecontractpolicies/broken": 500,
        f"{API}/mine/snapshots/snap": {"spec": {"application": "app"}},
        "/api/v1/namespaces/mine/secrets/key": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "key"},
            "data": secret,
        },
    }
    with serving(kubernetes(objects), tmp_path, tls=False) as service:
        yield service


def test_a_bare_name_is_looked_up_in_the_current_namespace(
    sources: Sources, cluster: Service, tmp_path: Path
) -> None:
    kube = Kubernetes(environment={"KUBECONFIG": str(kubeconfig(tmp_path, cluster.host))})
    assert load_policy("ec", sources, kube).public_key == "default"
    kube = Kubernetes(
        environment={"KUBECONFIG": str(kubeconfig(tmp_path, cluster.host, namespace="mine"))}
    )
    assert load_policy("ec", sources, kube).public_key == "mine"


def test_the_kubeconfig_flag_decides_about_server_and_namespace(
    sources: Sources, cluster: Service, tmp_path: Path
) -> None:
    kube = Kubernetes(
        str(kubeconfig(tmp_path, cluster.host, namespace="mine")),
        environment={"KUBECONFIG": "/nonexistent"},
    )
    assert load_policy("ec", sources, kube).public_key == "mine"


def test_several_kubeconfig_files_are_merged(
    sources: Sources, cluster: Service, tmp_path: Path
) -> None:
    (tmp_path / "first").write_text("current-context: x\n")
    listed = os.pathsep.join(
        [str(tmp_path / "first"), "/none", str(kubeconfig(tmp_path, cluster.host))]
    )
    assert (
        load_policy("ec", sources, Kubernetes(environment={"KUBECONFIG": listed})).public_key
        == "default"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("clusters: 5\n", "invalid configuration: {file} is no kubeconfig"),
        ("clusters: [5]\n", "invalid configuration: {file} is no kubeconfig"),
        ("users: [{{user: {{}}}}]\n", "invalid configuration: {file} is no kubeconfig"),
        ("- a\n", "invalid configuration: {file} is no kubeconfig"),
        ("{{{{{{", "invalid configuration: {file}: error converting YAML to JSON: "),
        (
            "current-context: a\ncontexts: [{{name: a}}]\nclusters: [{{name: b}}]\n",
            "invalid configuration: 'cluster' is missing",
        ),
    ],
)
def test_what_is_no_kubeconfig_is_named(
    sources: Sources, tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text.format())
    with pytest.raises(InputError) as caught:
        load_policy("ec", sources, Kubernetes(environment={"KUBECONFIG": str(file)}))
    expected = f"cannot initialize Kubernetes client: {reason.format(file=file)}"
    assert caught.value.message.startswith(expected)


@pytest.fixture
def kube(cluster: Service, tmp_path: Path) -> Kubernetes:
    return Kubernetes(str(kubeconfig(tmp_path, cluster.host)))


def test_a_policy_of_a_cluster_may_have_newer_keys(sources: Sources, kube: Kubernetes) -> None:
    assert load_policy("mine/ec", sources, kube).public_key == "mine"
    assert load_policy("mine/empty", sources, kube) == PolicyConfig()


@pytest.mark.parametrize(
    ("name", "message", "exit_status"),
    [
        (
            "mine/none",
            'unable to fetch EnterpriseContractPolicy: enterprisecontractpolicies "none" not found',
            1,
        ),
        (
            "/ec",
            "unable to fetch EnterpriseContractPolicy: unable to determine namespace for policy",
            1,
        ),
        (
            "mine/a/b",
            "unable to fetch EnterpriseContractPolicy: invalid resource name 'a/b': expected "
            "lower-case letters, digits, '-' and '.'",
            1,
        ),
        ("mine/denied", "unable to fetch EnterpriseContractPolicy: no", 3),
        ("mine/broken", "unable to fetch EnterpriseContractPolicy: no", 3),
    ],
)
def test_what_the_cluster_does_not_give_is_explained(
    sources: Sources, kube: Kubernetes, name: str, message: str, exit_status: int
) -> None:
    with pytest.raises(ConformaError) as caught:
        load_policy(name, sources, kube)
    assert caught.value.message == message
    assert caught.value.exit_status == exit_status


def test_types_of_a_policy_of_a_cluster_are_checked(sources: Sources, kube: Kubernetes) -> None:
    with pytest.raises(BadPolicyConfig, match="expected array"):
        load_policy("mine/bad", sources, kube)


def test_a_cluster_that_is_down_is_an_outage(sources: Sources, tmp_path: Path) -> None:
    with serving(kubernetes({}), tmp_path, tls=False) as server:
        pass
    kube = Kubernetes(str(kubeconfig(tmp_path, server.host)))
    with pytest.raises(
        SourceUnavailable, match="unable to fetch EnterpriseContractPolicy: "
    ) as caught:
        load_policy("mine/ec", sources, kube)
    assert caught.value.exit_status == 3


def test_snapshots_and_secrets_are_read(kube: Kubernetes) -> None:
    assert kube.snapshot("mine/snap") == {"application": "app"}
    assert kube.secret_field("mine", "key", "cosign.pub") == b"cosign.pub"
    assert kube.secret_field("mine", "key", "other") is None
    assert set(kube.secret("mine", "key")) == {"cosign.pub", "cosign.key"}
    with pytest.raises(InputError, match='checking if secret exists: secrets "none" not found'):
        kube.secret("mine", "none")
    with pytest.raises(InputError, match='unable to fetch Snapshot: snapshots "none" not found'):
        kube.snapshot("mine/none")
    with pytest.raises(InputError, match="unable to determine namespace for snapshot"):
        kube.snapshot("/snap")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("just text", "is no kubeconfig"),
        ("clusters: []", "No current context set"),
        ("current-context: x", "Context 'x' not found"),
    ],
)
def test_an_unusable_kubeconfig_is_explained(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "kubeconfig").write_text(content)
    with pytest.raises(InputError) as caught:
        Kubernetes(str(tmp_path / "kubeconfig")).policy("ns/x")
    assert caught.value.message.startswith(
        "cannot initialize Kubernetes client: invalid configuration: "
    )
    assert reason in caught.value.message


def test_a_kubeconfig_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Kubernetes(f"{tmp_path}/none").policy("ns/x")
    assert caught.value.message == (
        f"cannot initialize Kubernetes client: stat {tmp_path}/none: no such file or directory"
    )


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "lightkube.py").write_text("raise ImportError('not here')")
    script = (
        "from conforma.policy.kube import Kubernetes\n"
        "from conforma.errors import InputError\n"
        "try: Kubernetes().policy('ns/x')\n"
        "except InputError as error: print(error.message); print(error.hint)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "cannot initialize Kubernetes client: lightkube is not installed",
        "pip install 'conforma[k8s]', or give the policy or snapshot as a file",
    ]


def test_a_group_gets_a_directory_laid_out_as_the_specification_says(
    sources: Sources, tmp_path: Path
) -> None:
    for name, content in {"p/a.rego": "package a", "d/x.yml": "x: 1"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    text = (
        f"sources: [{{policy: [{tmp_path}/p], data: [{tmp_path}/d], ruleData: {{b: 1, a: '<'}}}}]"
    )
    config = PolicyConfig.parse(text)
    workspace = prepare(config.sources[0], sources)
    assert workspace.directory.name.startswith("ec-work-")
    (policy,), (data,) = workspace.policy_dirs, workspace.data_dirs
    assert policy.parent == workspace.directory / "policy"
    assert data.parent == workspace.directory / "data"
    assert len(policy.name) == len(data.name) == 9
    assert (policy / "a.rego").read_text() == "package a"
    (kept,) = workspace.directory.glob("data/*/rule_data.json")
    assert kept.read_text() == '{"rule_data__configuration__":{"a":"\\u003c","b":1}}'
    assert kept.stat().st_mode & 0o777 == 0o400
    assert config.pinned(workspace.pins).sources[0].policy == (f"file::{tmp_path}/p",)
    sources.close()
    assert not workspace.directory.exists()


def test_a_source_that_is_named_twice_is_there_once(sources: Sources, tmp_path: Path) -> None:
    for name, content in {"p/a.rego": "package a", "d/x.yml": "x: 1"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    rules, data = f"{tmp_path}/p", f"{tmp_path}/d"
    named = {"policy": [rules, rules], "data": [data, f"file::{data}", data]}
    config = PolicyConfig.parse(json.dumps({"sources": [named]}))
    workspace = prepare(config.sources[0], sources)
    assert [len(workspace.policy_dirs), len(workspace.data_dirs)] == [1, 1]
    assert (workspace.data_dirs[0] / "x.yml").read_text() == "x: 1"
    pinned = config.pinned(workspace.pins).sources[0]
    assert pinned.policy == (f"file::{rules}",) * 2
    assert pinned.data == (f"file::{data}",) * 3
