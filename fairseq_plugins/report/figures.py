"""Figures of a report as SVG that takes its colours from the page around it.

Every function returns ``Figure``: the same picture for a wide window and for a phone, and what it
shows in a sentence. The same data give the same bytes. Text stays text, so it can be searched,
copied and read large; colours are CSS custom properties, so they follow light and dark.
"""

import io
import itertools
import logging
import re
import textwrap
from typing import NamedTuple

# colours while matplotlib draws, and the property of the page that takes their place
COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "student": "#040404",
    "teacher": "#050505",
    "general": "#060606",
    "warning": "#070707",
    "paper": "#080808",
}
WIDE, NARROW = 900, 330  # width in CSS pixels
TEXT = 12  # CSS pixels
PANEL = 138  # height of a learning curve with its title, CSS pixels
SETTINGS = {
    "svg.fonttype": "none",  # text, not outlines
    "font.size": TEXT, "axes.titlesize": TEXT, "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT - 1, "ytick.labelsize": TEXT - 1,
    "text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"], "axes.edgecolor": COLOURS["muted"],
    "xtick.color": COLOURS["muted"], "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"], "ytick.labelcolor": COLOURS["ink"],
    "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "axes.grid": True, "grid.color": COLOURS["line"], "grid.linewidth": 0.8, "axes.axisbelow": True,
    "figure.dpi": 72,  # a point is a pixel
}  # fmt: skip
# where a label may stand: distance from its point in pixels, and direction
DISTANCES = (9, 20, 32, 46, 62, 80, 100, 124, 150, 180)
DIRECTIONS = (
    (1, 0), (-1, 0), (0.7, 0.9), (-0.7, 0.9), (0.7, -0.9), (-0.7, -0.9), (0, 1.3), (0, -1.3),
)  # fmt: skip
_SIDES = {1: "left", -1: "right", 0: "center"}
MARKERS = {  # shape and colour by kind of model
    "teacher": ("s", "teacher"),
    "general student": ("D", "general"),
    "student": ("o", "student"),
}

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells where it finds its fonts


class Figure(NamedTuple):
    """An SVG for a wide window, one for a narrow one, and what they show in words."""

    wide: str
    narrow: str
    description: str


def front(report):
    """Quality against speed, and against size; None where neither speed nor size is known."""
    from fairseq_plugins.report.comparisons import bleu

    panels = []
    rows = [row for row in report["groups"] if bleu(row) is not None]
    speeds = [(row, row["speed"]["beam"]["sentences_per_second"]) for row in rows
              if ((row["speed"] or {}).get("beam") or {}).get("sentences_per_second")]  # fmt: skip
    if speeds:
        panels.append(("sentences a second, with beam", speeds, report["fronts"]["speed"]))
    sizes = [(row, row["bytes"] / 1e6) for row in rows if row["bytes"]]
    if sizes:
        panels.append(("MB on disk", sizes, report["fronts"]["size"]))
    if not panels:
        return None

    def draw(plt, width):
        across = len(panels) if width == WIDE else 1
        down = -(-len(panels) // across)
        height = (320 + 5 * len(rows)) * down
        figure, axes = plt.subplots(
            down, across, figsize=(width / 72, height / 72), squeeze=False, layout="constrained"
        )
        for (label, points, on_front), axis in zip(panels, axes.flat, strict=True):
            _front_panel(axis, label, points, on_front, report["domain"])
        figure.canvas.draw()  # places the axes, which labels must not move any more
        figure.set_layout_engine("none")
        for (_, points, on_front), axis in zip(panels, axes.flat, strict=True):
            _label_points(axis, points, on_front)
        return figure

    told = [
        f"Best trade-offs of BLEU and {label}: {', '.join(on_front)}."
        for label, _, on_front in panels
    ]
    return _figure("front", draw, " ".join(told) + " The table below has the numbers.")


def _front_panel(axis, label, points, on_front, domain):
    for row, x in points:
        marker, colour = MARKERS[row["kind"]]
        entry = row["in_domain"]["beam"]["bleu"]
        axis.errorbar(
            x, entry["score"], yerr=entry["interval"], fmt=marker, markersize=7,
            color=COLOURS[colour], ecolor=COLOURS[colour], elinewidth=1, capsize=0,
            markerfacecolor=COLOURS[colour if row["kind"] != "general student" else "paper"],
            zorder=3,
        )  # fmt: skip
    where = {row["name"]: (x, row["in_domain"]["beam"]["bleu"]["score"]) for row, x in points}
    line = sorted(where[name] for name in on_front if name in where)
    if len(line) > 1:
        axis.plot(*zip(*line, strict=True), color=COLOURS["ink"], linewidth=1.2, dashes=(4, 3))
    values = [x for _, x in points]
    if max(values) > 3 * min(values) > 0:
        axis.set_xscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel(f"BLEU on {domain}")
    axis.margins(x=0.2, y=0.1)
    _plain_ticks(axis)


def _plain_ticks(axis):
    """Ticks as numbers that people write: 500, 1,000, 2,000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _label_points(axis, points, on_front):
    """Write each point's name where it covers no other name, no point and no interval.

    Where all places near a point are taken, the name goes further off, with a line to its point.
    Returns the boxes of the names, (left, bottom, right, top) in pixels.
    """
    frame = axis.get_window_extent()
    right, top = axis.figure.bbox.x1, axis.figure.bbox.y1
    dots, bars = [], []
    for row, x in points:
        entry = row["in_domain"]["beam"]["bleu"]
        low, dot, high = (
            axis.transData.transform((x, entry["score"] + shift * entry["interval"]))
            for shift in (-1, 0, 1)
        )
        dots.append((dot[0] - 5, dot[1] - 4, dot[0] + 5, dot[1] + 4))
        bars.append((low[0] - 1, low[1], high[0] + 1, high[1]))
    taken = []
    order = sorted(zip(points, dots, strict=True), key=lambda item: (-item[1][1], item[1][0]))
    for (row, x), dot in order:
        bold = row["name"] in on_front
        size = _text_size(axis, row["name"], bold)
        best = None
        for far, (across, up) in itertools.product(DISTANCES, DIRECTIONS):
            box = _box_at(dot, size, across * far, up * far)
            outside = box[0] < frame.x0 or box[1] < frame.y0 or box[2] > right or box[3] > top
            hits = sum(_overlap(box, other) for other in (*taken, *dots))
            cost = (hits + outside, sum(_overlap(box, bar) for bar in bars))
            if best is None or cost < best[0]:
                best = (cost, far, across, up, box)
            if cost == (0, 0):
                break
        _, far, across, up, box = best
        axis.annotate(
            row["name"], (x, row["in_domain"]["beam"]["bleu"]["score"]), (across * far, up * far),
            textcoords="offset points", va="center", ha=_SIDES[(across > 0) - (across < 0)],
            color=COLOURS["ink"], weight="bold" if bold else "normal", zorder=4,
            arrowprops=dict(arrowstyle="-", color=COLOURS["muted"], linewidth=0.7, shrinkB=5)
            if far > DISTANCES[0] else None,
        )  # fmt: skip
        taken.append(box)
    return taken


def _text_size(axis, text, bold):
    """Width and height of a name in pixels."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=TEXT, weight="bold" if bold else "normal")
    width, height, _ = axis.figure.canvas.get_renderer().get_text_width_height_descent(
        text, font, ismath=False
    )
    return width, height + 2


def _box_at(dot, size, across, up):
    """Box of a text whose anchor is so far from the middle of a point."""
    x, y = (dot[0] + dot[2]) / 2 + across, (dot[1] + dot[3]) / 2 + up
    left = x if across > 0 else x - size[0] if across < 0 else x - size[0] / 2
    return left, y - size[1] / 2, left + size[0], y + size[1] / 2


def _overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def curves(report, metric="bleu"):
    """Small panels, one for each group: dev scores over updates, the kept checkpoints marked.

    Seeds are lines of the same panel.

    Args:
        metric: ``bleu`` (of the dev set) or ``loss`` (of the dev set, and of training).

    Returns:
        ``Figure``, or None where no log holds such scores.
    """
    models = [
        curve for curve in report["curves"].values()
        if any(metric in point for point in curve["validations"])
        or (metric == "loss" and curve["training"])
    ]  # fmt: skip
    if not models:
        return None
    panels, highest = {}, {}
    for curve in models:
        panels.setdefault(curve["group"], []).append(curve)
        found = [value for _, value in _series(curve["validations"], metric)]
        highest[curve["dev"]] = max([*found, highest.get(curve["dev"], 0)])

    def draw(plt, width):
        across = min(len(panels), 4 if width == WIDE else 2)
        down = -(-len(panels) // across)
        height = 36 + PANEL * down
        figure, axes = plt.subplots(
            down, across, figsize=(width / 72, height / 72), squeeze=False
        )  # fmt: skip
        # fixed, because to measure the texts of many panels takes seconds
        figure.subplots_adjust(
            left=34 / width, right=1 - 6 / width, bottom=48 / height, top=1 - 32 / height,
            wspace=0.24, hspace=52 / (PANEL - 52),
        )  # fmt: skip
        for (name, seeds), axis in zip(panels.items(), axes.flat, strict=False):
            _curve_panel(axis, name, seeds, metric, highest[seeds[0]["dev"]])
        for axis in list(axes.flat)[len(panels) :]:
            axis.remove()
        figure.supxlabel("updates", fontsize=TEXT, y=6 / height)
        return figure

    told = []
    for curve in models:
        if values := _series(curve["validations"], metric):
            told.append(f"{curve['name']} {values[0][1]:.1f} to {values[-1][1]:.1f} "
                        f"in {values[-1][0]:,.0f} updates")  # fmt: skip
    label = "BLEU" if metric == "bleu" else "loss"
    return _figure(f"curves-{metric}", draw, f"Dev {label}, first to last: {'; '.join(told)}.")


def _series(entries, name):
    """[(update, value)] of the log entries that have ``name``."""
    return [(entry["update"], entry[name]) for entry in entries if name in entry]


def _curve_panel(axis, name, seeds, metric, highest):
    """Curves of the seeds of a group; the best kept value is told."""
    kept = []
    for curve in seeds:
        kept += _draw_curve(axis, curve, metric)
    if kept:
        update, value = max(kept, key=lambda point: point[1] if metric == "bleu" else -point[1])
        low = metric == "bleu" and value < highest / 3  # else it would cover the axis
        axis.annotate(
            f"{value:.1f}", (update, value), (0, 8 if low else -9), ha="right",
            va="bottom" if low else "top", textcoords="offset points", color=COLOURS["ink"],
            weight="bold",
        )  # fmt: skip
    axis.set_title(textwrap.fill(name, 20), fontsize=TEXT)
    if metric == "bleu":
        axis.set_ylim(0, max(highest, 1) * 1.1)
    axis.margins(x=0.08)
    axis.locator_params(nbins=3)
    _plain_ticks(axis)


def _draw_curve(axis, curve, metric):
    """Draw one training; returns [(update, value)] of the checkpoint that was kept."""
    colour = COLOURS["student" if curve["dev"] != "general" else "general"]
    if metric == "loss":
        if points := _series(curve["training"], "loss"):
            updates, losses = zip(*points, strict=True)
            axis.plot(updates, losses, color=COLOURS["muted"], linewidth=1, dashes=(2, 2))
    if points := _series(curve["validations"], metric):
        updates, values = zip(*points, strict=True)
        axis.plot(updates, values, color=colour, linewidth=1.6, marker="o", markersize=2.5)
    kept = [(update, value) for update, value in points if update == curve["kept"]]
    for point in kept:
        axis.plot(*point, marker="o", markersize=7, color=COLOURS["ink"], zorder=4)
    return kept


def forgetting(report):
    """In-domain BLEU gained and general BLEU lost by each adaptation; None where there is none."""
    models = report["forgetting"]
    if not models:
        return None
    domain = report["domain"]

    def draw(plt, width):
        height = 62 + 46 * len(models)
        figure, axis = plt.subplots(figsize=(width / 72, height / 72), layout="constrained")
        for place, entry in enumerate(models):
            for values, colour, shift in (
                (entry["in_domain"], "student", -0.17), (entry["general"], "warning", 0.17),
            ):  # fmt: skip
                _arrow(axis, place + shift, *values, COLOURS[colour], colour == "warning")
        axis.set_yticks(range(len(models)), [entry["name"] for entry in models])
        axis.set_ylim(len(models) - 0.5, -0.5)
        highest = max(max(*entry["in_domain"], *entry["general"]) for entry in models)
        axis.set_xlim(0, max(highest, 1) * 1.14)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("BLEU, before → after adapting")
        return figure

    told = [
        f"{entry['name']}: {domain} {entry['in_domain'][0]:.1f} to {entry['in_domain'][1]:.1f}, "
        f"general {entry['general'][0]:.1f} to {entry['general'][1]:.1f}"
        for entry in models
    ]
    return _figure("forgetting", draw, "; ".join(told) + ".")


def _arrow(axis, y, before, after, colour, hollow):
    axis.annotate(
        "", (after, y), (before, y),
        arrowprops=dict(arrowstyle="-|>", color=colour, linewidth=2, shrinkA=0, shrinkB=0,
                        linestyle=(0, (3, 1.5)) if hollow else "-"),
    )  # fmt: skip
    axis.plot(before, y, marker="o", markersize=5, color=colour,
              markerfacecolor=COLOURS["paper"] if hollow else colour)  # fmt: skip
    side = 1 if after >= before else -1
    axis.annotate(
        f"{after:.1f}", (after, y), (5 * side, 0), textcoords="offset points",
        ha="left" if side > 0 else "right", va="center", color=COLOURS["ink"],
    )  # fmt: skip


# -- from matplotlib to the page -----------------------------------------------------------


def _figure(name, draw, description):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pictures = []
    for width in (WIDE, NARROW):
        place = f"{name}-{'wide' if width == WIDE else 'narrow'}"
        with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": place}):
            figure = draw(pyplot, width)
            pictures.append(_for_page(_save(figure), place))
            pyplot.close(figure)
    return Figure(*pictures, description)


def _save(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _for_page(svg, place):
    """An SVG file as an element of a page: no prologue, own ids, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{place}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{place}-", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r"\1", svg, count=1)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.strip()
