"""Sources put where people want to look at them, in the layout of section 3.4."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from conforma.errors import SourceUnavailable
from conforma.policy.source import FetchedSource, Sources
from conforma.policy.source_url import directory_name


def destination_of(url: str, root: Path, kind: Literal["policy", "data"]) -> Path:
    """The directory below ``root`` that the source has for itself."""
    return root / kind / directory_name(url)


def put(url: str, destination: Path, sources: Sources) -> FetchedSource:
    """Fetch a source into its own directory ``destination``, below which nothing else is kept.

    What an earlier download left there is replaced, since a file that the source
    no longer has would be taken for a part of it; until the source has been
    fetched it stays. Raises what fetching raises, and ``SourceUnavailable`` for a
    directory that cannot be written.
    """
    sources.fetch(url)
    try:
        if destination.is_symlink():
            destination.unlink()
        elif destination.is_dir():
            shutil.rmtree(destination)
    except OSError as cause:
        raise SourceUnavailable(f"cannot replace {destination}: {cause}") from cause
    return sources.place(url, destination)
