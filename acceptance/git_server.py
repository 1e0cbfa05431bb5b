"""Git repositories over HTTPS: git's own http-backend behind a TLS socket of ours."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

from conforma.serve.bodies import MemoryBody
from conforma.serve.httpd import HttpServer, Incoming, Response

_AUTHOR = "Acceptance <acceptance@example.com> 1767607200 +0000"


class GitServer:
    """Serves the repositories below ``root`` as ``https://127.0.0.1:PORT/NAME.git``."""

    def __init__(self, root: Path, tls: ssl.SSLContext) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        path = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True)
        self._backend = Path(path.stdout.strip()) / "git-http-backend"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "",
        }
        self._http = HttpServer(self._handle, tls=tls)
        self.log = self._http.log
        self.faults = self._http.faults

    @property
    def host(self) -> str:
        """``address:port``."""
        return f"{self._http.address[0]}:{self._http.address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self._http.close()

    def commit(self, name: str, files: Mapping[str, str], branch: str = "main") -> str:
        """Commit exactly these files to a branch; returns the commit."""
        bare = self._root / f"{name}.git"
        if not bare.exists():
            self._git(self._root, "init", "-q", "--bare", "-b", "main", str(bare))
        tree = self._tree(bare, files)
        commit = f"tree {tree}\nauthor {_AUTHOR}\ncommitter {_AUTHOR}\n\nacceptance\n"
        made = self._git(bare, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit)
        self._git(bare, "update-ref", f"refs/heads/{branch}", made)
        return made

    def _tree(self, bare: Path, files: Mapping[str, str]) -> str:
        index = bare / "acceptance.index"
        index.unlink(missing_ok=True)
        for path, text in files.items():
            blob = self._git(bare, "hash-object", "-w", "--stdin", stdin=text)
            entry = f"100644,{blob},{path}"
            self._git(bare, "update-index", "--add", "--cacheinfo", entry, index=index)
        return self._git(bare, "write-tree", index=index)

    def _git(
        self, directory: Path, *arguments: str, stdin: str = "", index: Path | None = None
    ) -> str:
        environment = dict(self._environment)
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env=environment,
            input=stdin,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def _handle(self, incoming: Incoming) -> Response:
        body = b"".join(incoming.body)
        environment = {
            **self._environment,
            "PATH_INFO": incoming.path,
            "QUERY_STRING": incoming.target.partition("?")[2],
            "REQUEST_METHOD": incoming.method,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": incoming.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": incoming.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": incoming.headers.get("git-protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            [str(self._backend)], env=environment, input=body, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = {
            name: value.strip()
            for name, _, value in (line.partition(":") for line in head.decode().splitlines())
        }
        status = int(headers.pop("Status", "200").split()[0])
        return Response(status, headers, MemoryBody(content))
