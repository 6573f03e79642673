"""Bars with whiskers as SVG, readable on light and on dark ground."""

from html import escape

from rows import BY_NAME

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.bar { fill: #8c959f } .ours { fill: #0969da } .reference { fill: #57606a }
.whisker { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 } .ours { fill: #4493f8 } .reference { fill: #9198a1 }
  .whisker { stroke: #e6edf3 }
}
"""

LEFT, WIDTH, RIGHT, STEP, TOP = 270, 420, 70, 22, 44


def kind(name):
    if name == "kernel":
        return "reference"
    return "ours" if name.startswith("vswitch") else "bar"


def bar(place, name, title, spread, scale):
    y = TOP + place * STEP
    low, middle, high = (LEFT + value * scale for value in (spread.low, spread.middle, spread.high))
    center = y + 8
    value = f"{spread.middle:.0f}" if spread.middle >= 100 else f"{spread.middle:.1f}"
    whisker = f"M{low:.1f} {center}H{high:.1f}M{low:.1f} {center - 4}v8M{high:.1f} {center - 4}v8"
    return (
        f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(title)}</text>'
        f'<rect class="{kind(name)}" x="{LEFT}" y="{y}" width="{middle - LEFT:.1f}" height="16" rx="2"/>'
        f'<path class="whisker" fill="none" d="{whisker}"/>'
        f'<text x="{high + 8:.1f}" y="{y + 12}">{value}</text>'
    )


def svg(results, row):
    measured = [(name, title, results.spread(name, row.name)) for name, title in results.roles()]
    measured = [entry for entry in measured if entry[2]]
    if not measured:
        return None
    measured.sort(key=lambda entry: entry[2].middle, reverse=row.up)
    scale = WIDTH / max(spread.high for _, _, spread in measured)
    bars = [bar(place, *entry, scale) for place, entry in enumerate(measured)]
    height = TOP + len(bars) * STEP + 8
    better = "more is better" if row.up else "less is better"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" width="{LEFT + WIDTH + RIGHT}" role="img">',
            f"<style>{STYLE}</style>",
            f'<text class="title" x="8" y="20">{escape(row.title)}, {row.unit} ({better})</text>',
            *bars,
            "</svg>\n",
        ]
    )


def write_all(results, directory):
    directory.mkdir(exist_ok=True)
    for name in results.result["rows"]:
        drawn = svg(results, BY_NAME[name])
        if drawn:
            (directory / f"{name}.svg").write_text(drawn)
