"""What lies in a Kubernetes cluster: policies, snapshots and secrets, read through lightkube.

lightkube comes with the extra ``k8s`` and is imported when a cluster is first
needed. The cluster is the one kubectl would choose: ``--kubeconfig``, else the
files of ``KUBECONFIG``, else ``~/.kube/config``, else the one we run in.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from conforma import yamljson
from conforma.errors import ConformaError, InputError, SourceUnavailable

_GROUP: Final = "appstudio.redhat.com"
_VERSION: Final = "v1alpha1"
_CANNOT: Final = "cannot initialize Kubernetes client"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Kubernetes:
    """One cluster; connected when first asked. Every method raises ``InputError`` for
    what is not there or cannot be used, ``SourceUnavailable`` for what could not be learnt.
    """

    def __init__(
        self,
        kubeconfig: str = "",
        environment: Mapping[str, str] | None = None,
        *,
        offline: bool = False,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._offline = offline
        self._environment = os.environ if environment is None else environment
        self._client: Any = None

    def policy(self, reference: str) -> Any:
        """The specification of the ``enterprisecontractpolicies`` resource ``[namespace/]name``."""
        client = self._connected()
        with _explained("unable to fetch EnterpriseContractPolicy"):
            return self._custom(
                client,
                "EnterpriseContractPolicy",
                "enterprisecontractpolicies",
                reference,
                "policy",
            )

    def snapshot(self, reference: str) -> Any:
        """The specification of the ``snapshots`` resource ``[namespace/]name``."""
        client = self._connected()
        with _explained("unable to fetch Snapshot"):
            return self._custom(client, "Snapshot", "snapshots", reference, "snapshot")

    def secret(self, namespace: str, name: str) -> dict[str, bytes]:
        """The fields of a secret."""
        client = self._connected()
        from lightkube.resources.core_v1 import Secret

        _check_name(namespace)
        _check_name(name)
        with _explained("checking if secret exists"):
            found = client.get(Secret, name, namespace=namespace)
        try:
            return {
                field: base64.b64decode(value, validate=True)
                for field, value in (found.data or {}).items()
            }
        except (binascii.Error, TypeError) as cause:
            raise InputError(f"secret {namespace}/{name} is not base64") from cause

    def secret_field(self, namespace: str, name: str, field: str) -> bytes | None:
        """One field of a secret, ``None`` if the secret has no such field."""
        return self.secret(namespace, name).get(field)

    def _custom(self, client: Any, kind: str, plural: str, reference: str, what: str) -> Any:
        from lightkube.generic_resource import create_namespaced_resource

        namespace, slash, name = reference.partition("/")
        if not slash:
            namespace, name = client.namespace, reference
        if not namespace:
            raise InputError(f"unable to determine namespace for {what}")
        _check_name(namespace)
        _check_name(name)
        resource = create_namespaced_resource(_GROUP, _VERSION, kind, plural)
        return client.get(resource, name, namespace=namespace).get("spec") or {}

    def _connected(self) -> Any:
        if self._offline:
            raise SourceUnavailable(
                "the Kubernetes cluster is needed, but this run is offline",
                hint="give the policy, snapshot or key as a file",
            )
        if self._client is None:
            try:
                from lightkube import Client
                from lightkube.core.exceptions import ConfigError
            except ImportError as cause:
                raise InputError(
                    f"{_CANNOT}: lightkube is not installed",
                    hint="pip install 'conforma[k8s]', or give the policy or snapshot as a file",
                ) from cause
            try:
                self._client = Client(config=self._configuration())
            except (ConfigError, KeyError, TypeError, ValueError, OSError) as cause:
                reason = f"{cause} is missing" if isinstance(cause, KeyError) else str(cause)
                raise InputError(f"{_CANNOT}: invalid configuration: {reason}") from cause
        return self._client

    def _configuration(self) -> Any:
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.config.models import User

        if self._kubeconfig:
            files = [Path(self._kubeconfig)]
        elif listed := self._environment.get("KUBECONFIG"):
            files = [Path(name) for name in listed.split(os.pathsep) if name]
        else:
            home = self._environment.get("HOME")
            files = [Path(home) / ".kube" / "config"] if home else []
        if self._kubeconfig and not files[0].is_file():
            raise InputError(f"{_CANNOT}: stat {files[0]}: no such file or directory")
        found = [file for file in files if file.is_file()]
        if found:
            chosen = KubeConfig.from_dict(_merged(found), fname=found[0].absolute()).get()
            # A context need not name a user; lightkube wants one all the same.
            return chosen._replace(user=chosen.user or User()) if chosen else None
        if self._environment.get("KUBERNETES_SERVICE_HOST"):
            return KubeConfig.from_service_account().get()
        raise InputError(
            f"{_CANNOT}: invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment variable",
            hint="--kubeconfig or KUBECONFIG names the cluster to ask",
        )


def _merged(files: list[Path]) -> dict[str, Any]:
    """One configuration out of several files: of equal names the first counts, as for kubectl.

    Raises ``InputError`` for a file that is no kubeconfig.
    """
    merged: dict[str, Any] = {}
    lists: dict[str, dict[str, Any]] = {"clusters": {}, "contexts": {}, "users": {}}
    for file in files:
        try:
            document = yamljson.parse(file.read_bytes(), duplicate_keys="last")
            if current := document.get("current-context"):
                merged.setdefault("current-context", current)
            for name, entries in lists.items():
                for entry in document.get(name) or []:
                    entries.setdefault(entry["name"], entry)
        except InputError as cause:
            raise InputError(
                f"{_CANNOT}: invalid configuration: {file}: {cause.message}"
            ) from cause
        except (AttributeError, KeyError, TypeError) as cause:
            raise InputError(
                f"{_CANNOT}: invalid configuration: {file} is no kubeconfig",
                hint="it has lists of named clusters, contexts and users",
            ) from cause
    return merged | {name: list(entries.values()) for name, entries in lists.items()}


def _check_name(name: str) -> None:
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise InputError(
            f"invalid resource name {name[:253]!r}: expected lower-case letters, digits, '-' and '.'"
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what lightkube and its HTTP client raise into errors that say ``what`` failed."""
    from lightkube.core.exceptions import ApiError

    # Releases of lightkube differ in their HTTP library; its errors share this root.
    http_error: Any = next(base for base in ApiError.__mro__ if base.__name__ == "HTTPError")

    try:
        yield
    except InputError as cause:
        raise InputError(f"{what}: {cause.message}", hint=cause.hint) from cause
    except ApiError as cause:
        status = cause.response.status_code
        message = f"{what}: {cause.status.message or f'status {status}'}"
        error: ConformaError = SourceUnavailable(message)
        if status == 404:
            error = InputError(message)
        elif status in (401, 403):
            error = SourceUnavailable(message, hint="the cluster wants other credentials")
        raise error from cause
    except (http_error, OSError, ValueError) as cause:
        raise SourceUnavailable(
            f"{what}: {cause or type(cause).__name__}", hint="the cluster could not be asked"
        ) from cause
