"""in-toto statements as a build service makes them: SLSA provenance in Tekton Chains' shape.

Both provenance forms tell of the same pipeline run: a clone, a container build
and a check. They satisfy the SLSA schemas, and rules written for Tekton
Chains find in them what they look for: task references, parameters, results,
steps, materials.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from conforma import gojson
from conforma.oci.digest import Digest
from conforma.trust.envelope import STATEMENT_V01, STATEMENT_V1
from conforma.trust.signature import SLSA_V02, SLSA_V1

SPDX = "https://spdx.dev/Document"
CHAINS = "https://tekton.dev/chains/v2"
BUILD_TYPE_V02 = "tekton.dev/v1/PipelineRun"
BUILD_TYPE_V1 = "https://tekton.dev/chains/v2/slsa-tekton"
_TASKS = "registry.example.com/tasks"


class Build(Struct, frozen=True):
    """What provenance tells: from which source, by whom, with which outcome."""

    name: str
    """The image's repository with its registry."""
    digest: Digest
    source: str = "https://git.example.com/team/app.git"
    revision: str = "5f1e3a5c0b7d49c2a8e6f00d1234567890abcdef"
    tag: str = "latest"
    builder: str = CHAINS
    sbom: str = ""
    """Reference of an SBOM blob, if the build left one."""
    started: str = "2026-01-05T10:00:00Z"
    finished: str = "2026-01-05T10:07:31Z"
    task_bundles: str = _TASKS
    base_images: Mapping[str, Digest] = field(default_factory=dict)


class _Task(Struct, frozen=True):
    step: str
    task: str
    results: Mapping[str, str]
    after: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def reference(self, bundles: str) -> str:
        return f"{bundles}/{self.task}:1.0@{Digest.of(self.task.encode())}"


def statement(
    predicate_type: str,
    predicate: Any,
    name: str,
    digest: Digest,
    *,
    statement_type: str = STATEMENT_V01,
) -> dict[str, Any]:
    """A statement about one image."""
    return {
        "_type": statement_type,
        "predicateType": predicate_type,
        "subject": [{"name": name, "digest": {digest.algorithm: digest.hex}}],
        "predicate": predicate,
    }


def provenance_v02(build: Build) -> dict[str, Any]:
    """A SLSA v0.2 provenance statement, tasks in ``buildConfig``."""
    predicate = {
        "builder": {"id": build.builder},
        "buildType": BUILD_TYPE_V02,
        "invocation": {
            "configSource": {},
            "parameters": {"git-url": build.source, "revision": build.revision},
            "environment": {"labels": {"pipelines.openshift.io/runtime": "generic"}},
        },
        "buildConfig": {"tasks": [_task_v02(task, build) for task in _tasks(build)]},
        "metadata": {
            "buildStartedOn": build.started,
            "buildFinishedOn": build.finished,
            "completeness": {"parameters": False, "environment": False, "materials": False},
            "reproducible": False,
        },
        "materials": _materials(build),
    }
    return statement(SLSA_V02, predicate, build.name, build.digest)


def provenance_v1(build: Build, *, statement_type: str = STATEMENT_V1) -> dict[str, Any]:
    """A SLSA v1 provenance statement, task runs as resolved dependencies."""
    tasks = [
        {
            "name": "pipelineTask",
            "uri": f"oci://{task.reference(build.task_bundles).partition('@')[0]}",
            "digest": {"sha256": Digest.of(task.task.encode()).hex},
            "content": base64.b64encode(gojson.encode(_task_v1(task, build))).decode(),
        }
        for task in _tasks(build)
    ]
    source = {"name": "inputs/result", **_materials(build)[0]}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE_V1,
            "externalParameters": {
                "runSpec": {
                    "params": [
                        {"name": "git-url", "value": build.source},
                        {"name": "revision", "value": build.revision},
                    ]
                }
            },
            "internalParameters": {"labels": {"pipelines.openshift.io/runtime": "generic"}},
            "resolvedDependencies": [source, *_materials(build)[1:], *tasks],
        },
        "runDetails": {
            "builder": {"id": build.builder},
            "metadata": {
                "invocationId": Digest.of(build.revision.encode()).hex[:32],
                "startedOn": build.started,
                "finishedOn": build.finished,
            },
        },
    }
    return statement(SLSA_V1, predicate, build.name, build.digest, statement_type=statement_type)


def _tasks(build: Build) -> tuple[_Task, ...]:
    built = {"IMAGE_URL": f"{build.name}:{build.tag}", "IMAGE_DIGEST": str(build.digest)}
    if build.sbom:
        built["SBOM_BLOB_URL"] = build.sbom
    checked = (
        '{"result":"SUCCESS","timestamp":"1767607650","failures":0,"successes":4,"warnings":0}'
    )
    return (
        _Task(
            "clone-repository",
            "git-clone",
            {"commit": build.revision, "url": build.source},
            parameters={"url": build.source, "revision": build.revision},
        ),
        _Task(
            "build-container",
            "buildah",
            built,
            ("clone-repository",),
            {"IMAGE": f"{build.name}:{build.tag}", "HERMETIC": "true"},
        ),
        _Task("image-check", "image-check", {"TEST_OUTPUT": checked}, ("build-container",)),
    )


def _task_v02(task: _Task, build: Build) -> dict[str, Any]:
    bundle = task.reference(build.task_bundles)
    return {
        "name": task.step,
        "after": list(task.after) or None,
        "ref": {
            "resolver": "bundles",
            "params": [
                {"name": "name", "value": task.task},
                {"name": "bundle", "value": bundle},
                {"name": "kind", "value": "task"},
            ],
        },
        "startedOn": build.started,
        "finishedOn": build.finished,
        "status": "Succeeded",
        "steps": [
            {
                "entryPoint": f"{task.task} --run\n",
                "arguments": None,
                "environment": {"container": task.task, "image": f"oci://{bundle}"},
                "annotations": None,
            }
        ],
        "invocation": {
            "configSource": {
                "uri": f"oci://{bundle.partition('@')[0]}",
                "digest": {"sha256": Digest.of(task.task.encode()).hex},
                "entryPoint": task.task,
            },
            "parameters": dict(task.parameters),
            "environment": {
                "annotations": {},
                "labels": _labels(task),
            },
        },
        "results": _results(task),
    }


def _task_v1(task: _Task, build: Build) -> dict[str, Any]:
    bundle = task.reference(build.task_bundles)
    return {
        "metadata": {"name": f"run-{task.step}", "labels": _labels(task), "annotations": {}},
        "spec": {
            "params": [{"name": k, "value": v} for k, v in task.parameters.items()],
            "taskRef": {
                "resolver": "bundles",
                "params": [
                    {"name": "name", "value": task.task},
                    {"name": "bundle", "value": bundle},
                    {"name": "kind", "value": "task"},
                ],
            },
        },
        "status": {
            "conditions": [{"type": "Succeeded", "status": "True", "reason": "Succeeded"}],
            "startTime": build.started,
            "completionTime": build.finished,
            "results": _results(task),
            "steps": [{"name": task.task, "container": task.task, "imageID": bundle}],
        },
    }


def _labels(task: _Task) -> dict[str, str]:
    labels = {"tekton.dev/pipelineTask": task.step, "tekton.dev/task": task.task}
    if task.task == "buildah":
        labels["build.appstudio.redhat.com/build_type"] = "docker"
    return labels


def _results(task: _Task) -> list[dict[str, str]]:
    return [{"name": k, "type": "string", "value": v} for k, v in task.results.items()]


def _materials(build: Build) -> list[dict[str, Any]]:
    source = {"uri": f"git+{build.source}", "digest": {"sha1": build.revision}}
    images = [
        {"uri": f"oci://{name}", "digest": {digest.algorithm: digest.hex}}
        for name, digest in build.base_images.items()
    ]
    return [source, *images]
