"""How a mirror run that is not whole is told: by cause, each with the images it spoils."""

from __future__ import annotations

from typing import Final

from conforma.errors import ConformaError
from conforma.mirror.tally import Tally, affected

_MOST: Final = 20


def what_is_missing(tally: Tally) -> ConformaError | None:
    """The error for everything that failed; ``None`` if nothing did."""
    failed = [item for item in tally.plan.items if item.state == "failed"]
    if not failed:
        return None
    lines = []
    for item in failed[:_MOST]:
        images = affected(tally.plan, [item])
        named = ", ".join(images[:_MOST])
        more = f" and {len(images) - _MOST} more" if len(images) > _MOST else ""
        lines.append(f"{item}: {item.reason} (needed by {named}{more})")
    if len(failed) > _MOST:
        lines.append(f"and {len(failed) - _MOST} more failures")
    error = ConformaError(
        "\n".join(lines), hint="run the command again: it moves only what is missing"
    )
    error.exit_status = 3
    return error
