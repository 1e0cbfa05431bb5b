"""A client for the public tuf-conformance suite: the ledger's reader behind the suite's protocol.

``pytest tuf_conformance --entrypoint "python -m acceptance.tuf_client"`` in a
checkout of that suite runs it; CLIENT-CLI.md there describes the protocol.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from conforma.errors import ConformaError
from conforma.ledger.reader import Reader


def main() -> int:
    """Do what one command says; 1 if it cannot be done in a way that verifies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("command", choices=["init", "refresh", "download"])
    parser.add_argument("trusted_root", nargs="?")
    given = parser.parse_args()
    memory: Path = given.metadata_dir
    kept = memory.with_name("trusted_root")
    if given.command == "init":
        shutil.copyfile(given.trusted_root, kept)
        shutil.copyfile(given.trusted_root, memory / "root.json")
        return 0
    # A ledger has both below one address; so have the repositories of the suite.
    location = given.metadata_url.rstrip("/").removesuffix("/metadata")
    try:
        with Reader(location, kept.read_bytes(), memory) as reader:
            reader.refresh()
            for name in given.target_name:
                found = reader.find(name)
                if found is None:
                    return 1
                (given.target_dir / name.replace("/", "%2F")).write_bytes(found.content)
    except ConformaError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
