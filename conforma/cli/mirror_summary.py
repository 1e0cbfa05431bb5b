"""What a mirror run says at its end: what it would move, what it moved, what is missing and for whom."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from conforma.cli.mirror_progress import size_text
from conforma.errors import ConformaError
from conforma.mirror.tally import Tally, Totals, affected
from conforma.mirror.verification import Proof
from conforma.report.numbers import counted
from conforma.report.wrapping import harmless_line

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
        told = item.reason if item.reason.startswith(str(item.target)) else f"{item}: {item.reason}"
        lines.append(f"{told} (needed by {named}{more})")
    if len(failed) > _MOST:
        lines.append(f"and {counted(len(failed) - _MOST, 'more failure')}")
    error = ConformaError(
        "\n".join(lines), hint="run the command again: it moves only what is missing"
    )
    error.exit_status = 3
    return error


def print_plan(tally: Tally, output: str) -> None:
    """What would be moved, image by image, as ``text`` or ``json``."""
    totals = tally.totals()
    if output == "json":
        images = [
            {"image": i.label, "bytes": i.bytes_total, "missing": i.bytes_total - i.bytes_done}
            for i in tally.images()
        ]
        click.echo(json.dumps({"images": images, **_document(totals)}, indent=2))
        return
    for image in tally.images():
        missing = image.bytes_total - image.bytes_done
        click.echo(
            f"{size_text(missing):>10} of {size_text(image.bytes_total):>10}  "
            f"{harmless_line(image.label)}"
        )
    click.echo(
        f"would move {size_text(totals.bytes_total - totals.bytes_done)} of "
        f"{size_text(totals.bytes_total)} in {totals.planned} items, "
        f"{totals.by_state['present']} of them present"
    )


def print_summary(tally: Tally, proof: Proof | None, seconds: float, output: str) -> None:
    """What became of everything that was planned."""
    totals = tally.totals()
    if output == "json":
        document = _document(totals)
        if proof is not None:
            document["verified"] = {
                "names": proof.names,
                "manifests": proof.manifests,
                "blobs": proof.blobs,
                "bytes": proof.bytes,
                "problems": list(proof.problems),
            }
        click.echo(json.dumps(document, indent=2))
        return
    parts = " + ".join(f"{count} {state}" for state, count in totals.by_state.items())
    click.echo(f"{counted(len(tally.plan.images), 'image')}: planned {totals.planned} = {parts}")
    mounted = f", {counted(totals.mounted, 'blob')} mounted" if totals.mounted else ""
    click.echo(
        f"moved {size_text(totals.bytes_moved)} of {size_text(totals.bytes_total)}"
        f"{mounted}, in {seconds:.1f} s"
    )
    if proof is not None and not proof.problems:
        click.echo(
            f"verified {counted(proof.names, 'name')}, {counted(proof.manifests, 'manifest')}, "
            f"{counted(proof.blobs, 'blob')}, {size_text(proof.bytes)}"
        )


def _document(totals: Totals) -> dict[str, Any]:
    return {
        "planned": totals.planned,
        **{str(state): count for state, count in totals.by_state.items()},
        "mounted": totals.mounted,
        "bytes": totals.bytes_total,
        "moved": totals.bytes_moved,
    }
