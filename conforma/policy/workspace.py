"""The directory one source group works in: its rules and data, laid out as section 3.4 says.

Error texts of the engine name paths below it, and ``EC_DEBUG`` keeps it, so
that people can look at what was judged.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma import gojson
from conforma.errors import SourceUnavailable
from conforma.policy.source import FetchedSource, Sources
from conforma.policy.source_group import SourceGroup
from conforma.policy.source_url import directory_name

RULE_DATA: Final = "rule_data__configuration__"
"""Where rules find a group's rule data, below ``data``."""


class Workspace(Struct, frozen=True):
    """The content of one group's sources, each with its own directory, in the group's order."""

    directory: Path
    policy: tuple[FetchedSource, ...]
    data: tuple[FetchedSource, ...]

    @property
    def policy_dirs(self) -> tuple[Path, ...]:
        """Where the rules are."""
        return tuple(dict.fromkeys(source.path for source in self.policy))

    @property
    def data_dirs(self) -> tuple[Path, ...]:
        """Where the data files are; the group's rule data is not among them."""
        return tuple(dict.fromkeys(source.path for source in self.data))

    @property
    def origins(self) -> dict[Path, str]:
        """The pinned source that each directory holds."""
        return {source.path: source.pinned for source in self.policy + self.data}

    @property
    def pins(self) -> dict[str, str]:
        """The pinned form of each URL."""
        return {source.url: source.pinned for source in self.policy + self.data}


def prepare(group: SourceGroup, sources: Sources) -> Workspace:
    """Fetch what ``group`` names, unless it was already, and lay it out.

    Raises what fetching raises, for the first source in order that fails.
    """
    sources.fetch_all(group.urls)
    directory = sources.new_directory()
    policy = _placed(group.policy, sources, directory / "policy")
    data = _placed(group.data, sources, directory / "data")
    if group.rule_data is not None:
        _keep_rule_data(group, directory)
    return Workspace(directory, policy, data)


def _placed(urls: Iterable[str], sources: Sources, below: Path) -> tuple[FetchedSource, ...]:
    """Each source in a directory, one that is named again, or in other words, in the same one."""
    placed: dict[str, FetchedSource] = {}
    found = []
    for url in urls:
        pinned = sources.fetch(url).pinned
        if pinned not in placed:
            placed[pinned] = sources.place(url, below / directory_name(url))
        found.append(replace(placed[pinned], url=url))
    return tuple(found)


def _keep_rule_data(group: SourceGroup, directory: Path) -> None:
    """A copy for people to look at; rules get it from the evaluator."""
    content = gojson.dumps({RULE_DATA: group.rule_data}, sort_keys=True).encode()
    url = "data:application/json;base64," + base64.b64encode(content).decode()
    target = directory / "data" / directory_name(url)
    try:
        target.mkdir(parents=True, exist_ok=True)
        file = target / "rule_data.json"
        file.write_bytes(content)
        file.chmod(0o400)
    except OSError as cause:
        raise SourceUnavailable(f"cannot write below {directory}: {cause}") from cause
