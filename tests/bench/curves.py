"""A few curves over one axis as SVG, each in a strip of its own from zero up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, STRIP, LEFT, TOP = 900, 130, 70, 24
_INK, _GRID, _LINE = "#333", "#ddd", "#1f6feb"


@dataclass(frozen=True)
class Curve:
    """What is drawn, and its value at each point of the axis."""

    title: str
    values: Sequence[float]


def draw(axis: str, points: Sequence[float], curves: Sequence[Curve]) -> str:
    """The picture, as text of an SVG file."""
    height = TOP + len(curves) * STRIP + 30
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}"><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    )
    parts = [opening]
    end = points[-1] or 1.0
    for row, curve in enumerate(curves):
        parts += _strip(curve, [LEFT + (WIDTH - LEFT - 20) * point / end for point in points], TOP + row * STRIP)
    bottom = TOP + len(curves) * STRIP + 10
    parts.append(f'<text x="{LEFT}" y="{bottom}">0</text>')
    parts.append(f'<text x="{WIDTH - 20}" y="{bottom}" text-anchor="end">{end:.0f} {escape(axis)}</text></svg>')
    return "\n".join(parts) + "\n"


def _strip(curve: Curve, across: Sequence[float], top: float) -> list[str]:
    floor, most = top + STRIP - 40, max(curve.values) or 1.0
    down = [floor - (STRIP - 60) * value / most for value in curve.values]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    return [
        f'<text x="{LEFT}" y="{top + 8}" font-weight="bold">{escape(curve.title)}</text>',
        *(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            for y, value in ((floor, 0), (floor - (STRIP - 60), most))
        ),
        f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>',
    ]
