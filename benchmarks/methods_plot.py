"""The plot of a comparison of methods: learning curves and gains, as one SVG file that needs no library to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.compared import Paired

Line = Sequence[tuple[float, float]]

COLOURS = ("#2a62c9", "#d9660a", "#17906a", "#8b54d1", "#c2362f", "#5d6b7d", "#b8860b", "#0a8fa8")
WIDTH, LEFT, RIGHT, TOP, HEIGHT, ROW = 900, 46, 14, 34, 230, 26
LABELS = 150
"""Room for the methods' names beside the gains."""
STYLE = """text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b1f27; }
.tick { font-size: 11px; fill: #667080; } .title { font-size: 13px; font-weight: 600; }
.grid { stroke: #e2e3de; } .zero { stroke: #667080; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.bar { stroke-width: 3; stroke-linecap: round; } .seed { fill: none; stroke-width: 1.2; }"""


def plot(curves: Mapping[str, Mapping[str, Line]], gains: Mapping[str, Paired]) -> str:
    """Two charts of shares over updates (title -> method -> points) side by side; below, each method's gain with its
    interval over scenes, and a ring for each seed. The names there are the legend of all."""
    colours = {method: COLOURS[index % len(COLOURS)] for index, method in enumerate(gains)}
    below = HEIGHT + 20
    height = below + TOP + ROW * len(gains) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]  # fmt: skip
    share = WIDTH / max(len(curves), 1)
    for number, (title, lines) in enumerate(curves.items()):
        parts += chart(title, lines, colours, number * share, share)
    parts += forest(gains, colours, below)
    return "\n".join([*parts, "</svg>"]) + "\n"


def chart(title: str, lines: Mapping[str, Line], colours: Mapping[str, str], left: float, width: float) -> list[str]:
    """Shares over updates."""
    points = [point for line in lines.values() for point in line]
    first, last = min((x for x, _ in points), default=1), max((x for x, _ in points), default=2)
    low = math.floor(10 * min((y for _, y in points), default=0)) / 10
    high = max(math.ceil(10 * max((y for _, y in points), default=1)) / 10, low + 0.1)

    def x(value: float) -> float:
        return left + LEFT + (value - first) / ((last - first) or 1) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - 22 - (value - low) / (high - low) * (HEIGHT - 22 - TOP)

    parts = [text(left + LEFT, 20, title, "title")]
    for value in ticks(low, high):
        parts.append(rule(x(first), y(value), x(last), y(value), "grid"))
        parts.append(text(x(first) - 6, y(value) + 4, f"{100 * value:.0f} %", "tick", "end"))
    for value in (value for value in ticks(first, last) if value == int(value)):
        parts.append(text(x(value), HEIGHT - 6, f"{value:.0f}", "tick", "middle"))
    for method, line in lines.items():
        path = "".join(f"{'L' if i else 'M'}{x(a):.1f} {y(b):.1f}" for i, (a, b) in enumerate(line))
        shown = f"<title>{escape(method)}</title>"
        parts.append(f'<path class="line" stroke="{colours[method]}" d="{path}">{shown}</path>')
    return parts


def forest(gains: Mapping[str, Paired], colours: Mapping[str, str], top: float) -> list[str]:
    """A row for each method: mean, interval, seeds."""
    ends = [0.0]
    for gain in gains.values():
        interval = gain.pooled.interval
        ends += [*gain.seeds.values(), *((interval.low, interval.high) if interval else ())]
    low, high = math.floor(10 * min(ends)) / 10, max(math.ceil(10 * max(ends)) / 10, 0.1)

    def x(value: float) -> float:
        return LABELS + (value - low) / (high - low) * (WIDTH - LABELS - 3 * RIGHT)

    bottom = top + TOP + ROW * len(gains)
    parts = [text(LEFT, top + 20, "Gain on held-out tasks, in points: mean, 95 % over scenes, rings: seeds", "title")]
    for value in ticks(low, high):
        parts.append(rule(x(value), top + TOP, x(value), bottom, "zero" if abs(value) < 1e-9 else "grid"))
        parts.append(text(x(value), bottom + 18, f"{100 * value:+.0f}" if value else "0", "tick", "middle"))
    for number, (method, gain) in enumerate(gains.items()):
        y, colour = top + TOP + ROW * (number + 0.5), colours[method]
        parts.append(text(LABELS - 14, y + 4, method, anchor="end"))
        parts.append(f'<rect x="{LABELS - 10:.0f}" y="{y - 5:.1f}" width="6" height="10" fill="{colour}"/>')
        interval = gain.pooled.interval
        if interval:
            parts.append(rule(x(interval.low), y, x(interval.high), y, "bar", colour))
        parts.append(f'<circle cx="{x(gain.pooled.mean):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        for value in gain.seeds.values():
            parts.append(f'<circle class="seed" cx="{x(value):.1f}" cy="{y + 7:.1f}" r="2.5" stroke="{colour}"/>')
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, about five."""
    rough = (high - low or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A label."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def rule(x0: float, y0: float, x1: float, y1: float, kind: str, colour: str = "") -> str:
    """A straight line."""
    stroke = f' stroke="{colour}"' if colour else ""
    return f'<line class="{kind}"{stroke} x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
