"""What the images of the demo are made of: a base, three language runtimes, twelve services.

Layers are shared the way real images share them: all services stand on one
base, those in one language on one runtime. Contents are pseudo-random, so
that compression does not flatter the numbers, and the same in every run.
"""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from conforma.serve.images import Layer, Member, directory, layer_of, random_member, symlink
from conforma.serve.sboms import Package

MIB = 1024 * 1024
# Most of the content is random, where higher levels gain nothing.
_LEVEL = 1

COMPONENTS = {
    "accounts": "python",
    "admin": "node",
    "cart": "java",
    "catalog": "java",
    "checkout": "java",
    "notifications": "python",
    "payments": "java",
    "recommendations": "python",
    "reviews": "node",
    "search": "python",
    "shipping": "python",
    "storefront": "node",
}
VERSION = "2.4.1"

_RUNTIMES = {
    "python": (Package("python", "3.13.1", "PSF-2.0"), Package("openssl", "3.4.0")),
    "node": (Package("node", "22.12.0", "MIT"), Package("openssl", "3.4.0")),
    "java": (Package("openjdk", "21.0.5", "GPL-2.0-only"), Package("zlib", "1.3.1", "Zlib")),
}
_BASE = (Package("glibc", "2.40", "LGPL-2.1-or-later"), Package("bash", "5.2.37", "GPL-3.0-only"))


class Content(Struct, frozen=True):
    """The layers of one service, lowest first, and the packages in them."""

    layers: tuple[Layer, ...]
    packages: tuple[Package, ...]


@cache
def base_layers() -> tuple[Layer, ...]:
    """The base image: an operating system and its certificates."""
    system = [
        directory("etc"),
        directory("usr"),
        directory("usr/bin"),
        directory("usr/lib"),
        symlink("bin", "usr/bin"),
        symlink("lib", "usr/lib"),
        Member("etc/os-release", b'NAME="Example Linux"\nVERSION_ID="9.4"\n'),
        Member("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\napp:x:1001:0:app:/app:/bin/bash\n"),
        # On the list of setuid files that the policy allows, as distributions ship it.
        Member("usr/bin/su", b"\x7fELF su", mode=0o4755),
        Member("usr/bin/bash", b"\x7fELF bash", mode=0o755),
        random_member("usr/lib/libc.so.6", 10 * MIB, "libc"),
    ]
    certificates = [
        directory("etc/pki"),
        random_member("etc/pki/ca-bundle.crt", MIB // 4, "certificates"),
    ]
    return layer_of(system, level=_LEVEL), layer_of(certificates, level=_LEVEL)


@cache
def runtime_layers() -> dict[str, tuple[Layer, ...]]:
    """For each language an interpreter and its libraries."""
    sizes = {"python": (5, 2), "node": (6, 2), "java": (8, 3)}
    return {
        name: (
            layer_of([random_member(f"usr/lib/{name}/runtime", big * MIB, name)], level=_LEVEL),
            layer_of(
                [random_member(f"usr/lib/{name}/lib", small * MIB, f"{name}-lib")], level=_LEVEL
            ),
        )
        for name, (big, small) in sizes.items()
    }


def own_layer(name: str, *, forbidden: bool) -> Layer:
    """What a service adds; ``forbidden`` slips in a private key and a setuid shell."""
    config = f"service: {name}\ndatabase:\n  user: {name}\n  passwordFile: /run/secrets/database\n"
    members = [
        directory("app"),
        directory("etc/app"),
        Member("etc/app/config.yaml", config.encode()),
        random_member(f"app/{name}", MIB // 2, name),
    ]
    if forbidden:
        header = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
        members += [
            Member("root/.ssh/id_ed25519", header, mode=0o600),
            Member("usr/bin/helper", b"\x7fELF helper", mode=0o4755),
        ]
    return layer_of(members, level=_LEVEL)


def contents(forbidden: str | None = None) -> dict[str, Content]:
    """The content of every service; ``forbidden`` names the one with forbidden files."""
    base, runtimes = base_layers(), runtime_layers()
    return {
        name: Content(
            (*base, *runtimes[language], own_layer(name, forbidden=name == forbidden)),
            (*_BASE, *_RUNTIMES[language], Package(name, VERSION)),
        )
        for name, language in COMPONENTS.items()
    }
