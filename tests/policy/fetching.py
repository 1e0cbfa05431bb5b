"""What tests of sources share: a way to fetch, and archives to be fetched."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

from conforma.cancellation import Cancellation
from conforma.oci.registry import Registry
from conforma.oci.retry import RetryPolicy
from conforma.policy.source import Sources

FAST = RetryPolicy(duration=0.0, max_wait=0.0)


def sources_with(
    cancellation: Cancellation,
    registry: Registry | None = None,
    ca: Path | None = None,
    **more: str,
) -> Sources:
    environment = {**os.environ, **more}
    environment.pop("EC_DEBUG", None) if "EC_DEBUG" not in more else None
    if ca is not None:
        environment |= {"SSL_CERT_FILE": str(ca)}
        environment.pop("SSL_CERT_DIR", None)

    def get() -> Registry:
        assert registry is not None
        return registry

    return Sources(get, cancellation, retry=FAST, environment=environment)


def tree(directory: Path) -> dict[str, str]:
    assert not any(p.is_symlink() for p in directory.rglob("*"))
    return {
        str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()
    }


def tar(members: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as writer:  # type: ignore[call-overload]
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
                writer.addfile(info, io.BytesIO(content))
            else:
                writer.addfile(info)
    return out.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info
