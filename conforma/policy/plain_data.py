"""The data files of sources as one document, by their top-level keys (section 16 of the commands).

Rules see them merged more deeply; this is for people, to whom a key that
stands in two files is worth a word.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from conforma import yamljson
from conforma.errors import InputError, PolicyError
from conforma.policy.source import FetchedSource

log = logging.getLogger("conforma.policy")

_SUFFIXES: Final = frozenset((".json", ".yaml", ".yml"))


def merged(sources: Iterable[FetchedSource]) -> dict[str, Any]:
    """The members of every JSON and YAML file of the sources.

    Raises ``PolicyError`` for a file that is no mapping and for a key that
    stands in two files.
    """
    origins: dict[str, str] = {}
    data: dict[str, Any] = {}
    for source in sources:
        for path in _data_files(source.path):
            shown = f"{path.relative_to(source.path)} of {source.pinned}"
            for key, value in _members(path, shown).items():
                if key in data:
                    log.info("%s is in %s and in %s", key, origins[key], shown)
                    raise PolicyError(f"Merge error. The '{key}' key was found more than once!")
                data[key], origins[key] = value, shown
    return data


def _data_files(directory: Path) -> Iterator[Path]:
    for place, below, names in os.walk(directory):
        below.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in _SUFFIXES:
                yield Path(place, name)


def _members(path: Path, shown: str) -> dict[str, Any]:
    try:
        document = yamljson.parse(path.read_bytes(), duplicate_keys="last")
    except InputError as cause:
        raise PolicyError(f"{shown}: {cause.message}") from cause
    if not isinstance(document, dict | None):
        raise PolicyError(f"{shown}: a data file is a mapping, not {type(document).__name__}")
    return document or {}
