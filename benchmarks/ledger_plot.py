"""The figures of the ledger benchmark as an SVG, without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.ledger_results import Result

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 48, 52
COLORS = {"group": "#0b6e99", "lock": "#b4442c"}
NAMES = {"group": "group commit", "lock": "one lock per task"}


def draw(results: Sequence[Result]) -> str:
    """Operations per second over publishers, a line for each design and mode."""
    lines = _lines(results)
    workers = sorted({w for points in lines.values() for w, _ in points})
    top = _round_up(max(rate for points in lines.values() for _, rate in points))
    span_x, span_y = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(worker: float, rate: float) -> tuple[float, float]:
        return LEFT + span_x * worker / workers[-1], HEIGHT - BOTTOM - span_y * rate / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" role="img">',
        "<title>Operations per second over publishers</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Published operations per second</text>',
        f'<text x="{LEFT}" y="38" fill="#555">preparing 20 ms, committing 50 ms</text>',
        f'<text x="{LEFT + span_x / 2}" y="{HEIGHT - 12}" text-anchor="middle">publishers</text>',
    ]
    for step in range(6):
        _, y = place(0, top * step / 5)
        parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + span_x}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * step / 5:g}</text>'
        )
    for worker in workers:
        x, y = place(worker, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{worker}</text>')
    labels: list[float] = []
    for (design, mode), points in sorted(lines.items(), key=lambda line: -line[1][-1][1]):
        dash = ' stroke-dasharray="6 4"' if mode == "threads" else ""
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{COLORS[design]}" '
            f'stroke-width="2"{dash}/>'
        )
        for point in points:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLORS[design]}"/>')
        x, y = place(*points[-1])
        y = max([y, *(label + 15 for label in labels)])
        labels.append(y)
        parts.append(
            f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="{COLORS[design]}">'
            f"{NAMES[design]}, {mode}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _lines(
    results: Sequence[Result],
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The points of each line; of several sizes the largest."""
    largest: dict[tuple[str, str, int], Result] = {}
    for result in results:
        key = (result.design, result.mode, result.workers)
        if key not in largest or result.operations > largest[key].operations:
            largest[key] = result
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for (design, mode, workers), result in sorted(largest.items()):
        lines.setdefault((design, mode), []).append((workers, result.rate))
    return lines


def _round_up(value: float) -> float:
    step = 10.0 ** (len(str(int(value))) - 1) / 2
    return step * (int(value / step) + 1)
