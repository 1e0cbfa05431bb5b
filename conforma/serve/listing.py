"""The answers that come in pages: repositories, tags and referrers."""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import urlencode

from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.serve.bodies import MemoryBody
from conforma.serve.httpd import Incoming, Response
from conforma.serve.repository import Repository

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def page_of_names(
    incoming: Incoming,
    member: str,
    names: tuple[str, ...],
    page_size: int | None,
    **others: str,
) -> Response:
    """The names after ``last``, at most ``n`` and ``page_size`` of them, with a link to the next.

    Distribution specification, content discovery.
    """
    last = incoming.query.get("last", "")
    rest = [name for name in names if name > last]
    asked = incoming.query.get("n", "")
    sizes = [int(asked)] if _NUMBER.fullmatch(asked) else []
    sizes += [page_size] if page_size else []
    page = rest[: min(sizes)] if sizes else rest
    answer = Response.document(200, {**others, member: page})
    if page and len(page) < len(rest):
        query = {"last": page[-1], **({"n": asked} if asked else {})}
        answer.headers["Link"] = f'<{incoming.path}?{urlencode(query)}>; rel="next"'
    return answer


def page_of_referrers(
    incoming: Incoming, repository: Repository, subject: Digest, page_size: int | None
) -> Response:
    """The manifests whose subject this is, narrowed by ``artifactType`` if asked.

    Distribution specification, listing referrers.
    """
    wanted = incoming.query.get("artifactType")
    found = _referrers(repository, subject, wanted)
    begin = incoming.query.get("next", "0")
    start = int(begin) if _NUMBER.fullmatch(begin) else 0
    page = found[start : start + page_size] if page_size else found
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": page}
    headers = {"Content-Type": media_types.OCI_INDEX}
    if wanted is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    if start + len(page) < len(found):
        query = {**incoming.query, "next": str(start + len(page))}
        headers["Link"] = f'<{incoming.path}?{urlencode(query)}>; rel="next"'
    return Response(200, headers, MemoryBody(json.dumps(index).encode()))


def _referrers(
    repository: Repository, subject: Digest, wanted: str | None
) -> list[dict[str, object]]:
    found = []
    for digest, stored in repository.referrers(subject):
        document = stored.document
        kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
        if wanted is not None and kind != wanted:
            continue
        entry = {
            "mediaType": stored.media_type,
            "size": len(stored.raw),
            "digest": str(digest),
            "artifactType": kind,
            "annotations": document.get("annotations"),
        }
        found.append({key: value for key, value in entry.items() if value})
    return found
