"""Draws the plots of reports/peers: reads their figures as JSON from stdin, and writes SVG files into a folder."""
import json, os, sys

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "peers", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
from matplotlib import pyplot

COLOURS = {"hubproof": "#0072b2", "Artillery": "#d55e00", "Locust": "#009e73", "tsung": "#cc79a7", "k6": "#8c6d00"}
MARKERS = {"hubproof": "o", "Artillery": "s", "Locust": "^", "tsung": "D", "k6": "v"}


def lines(axes, series, title, label):
    """Draws, for each tool, [rate, median, least, most] as a line with error bars; a rate that is not reached is hollow."""
    for tool, points in series.items():
        if points:
            rates, medians, least, most, reached = zip(*points)
            errors = [[middle - low for middle, low in zip(medians, least)], [high - middle for middle, high in zip(medians, most)]]
            axes.errorbar(rates, medians, yerr=errors, color=COLOURS[tool], label=tool, linewidth=1.5, capsize=2)
            for rate, middle, good in zip(rates, medians, reached):
                axes.plot(rate, middle, MARKERS[tool], color=COLOURS[tool], markersize=6, fillstyle="full" if good else "none")
    axes.set(xscale="log", yscale="log", xlabel="round trips a second", ylabel=label, title=title)
    axes.grid(True, which="major", linewidth=0.4, alpha=0.6)


def main(folder):
    figures = json.load(sys.stdin)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    lines(left, figures["cpu"], "CPU of the tool per round trip", "µs")
    lines(right, figures["p99"], "p99 that the tool reports", "ms")
    left.legend(frameon=False)
    figure.savefig(os.path.join(folder, "peers-rates.svg"), metadata={"Date": None})
    if not figures["memory"]:
        return
    figure, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    tools = list(figures["memory"])[::-1]
    bars = axes.barh(tools, [figures["memory"][tool] for tool in tools], color=[COLOURS[tool] for tool in tools])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="kB per idle client", title="Memory of the tool", xscale="log")
    figure.savefig(os.path.join(folder, "peers-memory.svg"), metadata={"Date": None})


main(sys.argv[1])
