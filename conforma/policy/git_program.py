"""The git program, run as a child: without a shell, without prompts, in an environment of our making.

What it fetches is untrusted, so no hook, filter or submodule runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import SourceUnavailable

# Settings people make for their machine, not for one repository.
_KEPT: Final = re.compile(
    r"GIT_SSL_(?:CAINFO|CAPATH|CERT|KEY)|GIT_SSH(?:_COMMAND)?|GIT_HTTP_USER_AGENT"
    r"|GIT_CONFIG_(?:NOSYSTEM|GLOBAL|SYSTEM|COUNT|KEY_\d+|VALUE_\d+)"
)
_SETTINGS: Final = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "http.followRedirects=initial",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.symlinks=true",
    "core.attributesFile=/dev/null",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "advice.detachedHead=false",
    "log.follow=false",
    "log.showSignature=false",
)


class GitProgram:
    """Runs git commands. Thread safe."""

    def __init__(self, cancellation: Cancellation, environment: Mapping[str, str]) -> None:
        self._cancellation = cancellation
        self._environment = child_environment(environment)

    def run(
        self, arguments: Sequence[str], git_dir: Path | None = None, tree: Path | None = None
    ) -> tuple[int, str, str]:
        """Run git to its end; returns exit status, output and error text.

        Raises ``SourceUnavailable`` if there is no git to run, ``Interrupted``.
        """
        self._cancellation.raise_if_cancelled()
        command = ["git", *(word for setting in _SETTINGS for word in ("-c", setting))]
        if git_dir is not None:
            command += ["--git-dir", str(git_dir)]
        if tree is not None:
            command += ["--work-tree", str(tree)]
        try:
            child = subprocess.Popen(  # noqa: S603 - no shell, options end before any outside text
                [*command, *arguments],
                cwd=tree,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except FileNotFoundError as cause:
            raise SourceUnavailable(
                "error cloning repository: git is not installed",
                hint="install git, or use an OCI or https source",
            ) from cause
        except OSError as cause:
            raise SourceUnavailable(
                f"error cloning repository: git cannot be run: {cause.strerror}"
            ) from cause
        # The group, since git leaves the network to helpers of its own.
        forget = self._cancellation.on_cancel(lambda: _end_group(child))
        try:
            out, error = child.communicate()
        except BaseException:
            _end_group(child)
            child.communicate()
            raise
        finally:
            forget()
        self._cancellation.raise_if_cancelled()
        return child.returncode, out, error


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What git sees of our environment: nothing that redirects, traces or asks."""
    result = {
        name: value
        for name, value in environment.items()
        if not name.startswith("GIT_") or _KEPT.fullmatch(name)
    }
    result |= {
        "LC_ALL": "C",
        "LANGUAGE": "",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GCM_INTERACTIVE": "never",
    }
    if "GIT_SSH" not in result:
        result.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    if environment.get("GIT_SSL_NO_VERIFY") == "true":
        result["GIT_SSL_NO_VERIFY"] = "true"
    for ours, gits in (("SSL_CERT_FILE", "GIT_SSL_CAINFO"), ("SSL_CERT_DIR", "GIT_SSL_CAPATH")):
        if environment.get(ours):
            result[gits] = environment[ours]
    return result


def _end_group(child: subprocess.Popen[str]) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
