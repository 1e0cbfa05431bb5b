"""Where the bytes of a TUF repository come from: its server, a directory, our own copy.

The library's fetcher speaks to servers; the other two never leave this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from conforma.errors import InputError, TrustRootUnavailable

if TYPE_CHECKING:
    from tuf.ngclient.fetcher import FetcherInterface


def fetcher_for(url: str) -> FetcherInterface | None:
    """What reads ``url``; ``None`` leaves it to the library."""
    if urlsplit(url).scheme != "file":
        return None
    return _files(lambda wanted: Path(unquote(urlsplit(wanted).path)))


def copy_in(directory: Path) -> FetcherInterface:
    """A fetcher by which our copy of a repository plays the repository."""

    def place(url: str) -> Path:
        name = re.sub(r"^\d+\.", "", url.rpartition("/")[2])
        # Our root.json is where we are; a newer one is what we do not have.
        return directory / ("no newer root" if name == "root.json" else name)

    return _files(place)


def download(url: str, most: int) -> bytes:
    """What is at ``url``, at most so many bytes.

    Raises ``InputError`` if there is nothing, ``TrustRootUnavailable`` if that
    could not be learnt.
    """
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

    try:
        return (fetcher_for(url) or Urllib3Fetcher()).download_bytes(url, most)
    except DownloadError as cause:
        if isinstance(cause, DownloadHTTPError) and cause.status_code in (403, 404, 410):
            raise InputError(f"{url}: {cause}") from cause
        hint = "check the URL and the network"
        raise TrustRootUnavailable(f"{url}: {reason(cause)}", hint=hint) from cause


def reason(cause: BaseException) -> str:
    """What went wrong, in words: the library's own error for a broken connection has none."""
    if str(cause):
        return str(cause)
    root = cause
    while behind := root.__cause__ or root.__context__:
        root = behind
    told = root.strerror if isinstance(root, OSError) else str(root)
    return told or type(cause).__name__


def _files(place: Callable[[str], Path]) -> FetcherInterface:
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.ngclient.fetcher import FetcherInterface

    class Files(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            path = place(url)
            try:
                content = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as cause:
                raise DownloadHTTPError(f"{path.name} is not on disk", 404) from cause
            except OSError as cause:
                raise DownloadError(f"{path}: {cause.strerror}") from cause
            yield content

    return Files()
