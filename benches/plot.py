#!/usr/bin/env python3
"""Draws the latest figures as plots, into the target folder beside them; with
--record it takes them into benches/figures, and writes the tables of
docs/PERFORMANCE.md and the plots in docs/images from there. A name without figures of
a latest run is drawn from what is recorded.

plot.py [--record] [TABLE]... (default: all of them)"""

import sys

import matplotlib
import tables
from matplotlib import pyplot
from rig import figures
from rig.figures import LATEST, RECORDED

IMAGES = figures.ROOT / "docs" / "images"
OURS_COLOR, OTHER_COLOR, GOAL_COLOR = "#c2410c", "#94a3b8", "#475569"
PALETTE = ["#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#64748b", "#be185d", "#0f766e"]


def peers(found):
    """A dot for each load, as the servers are two orders of magnitude apart."""
    names = list(found["idle"])[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 4.2))
    for load, color, marker in zip(tables.LOADS, PALETTE, "oDs^v"):
        axes.scatter([found[load][name]["cpu_us"] for name in names], names, label=load, color=color, marker=marker, s=34, zorder=3)
    axes.set_xscale("log")
    axes.set_xticks([3, 5, 10, 20, 50, 100, 200, 300])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(color="#e2e8f0")
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == tables.OURS else "normal")
    axes.set_title("CPU of a GetUser in microseconds, logarithmic: less is better")
    axes.legend(title="connections x calls", loc="upper right")
    return figure


def creates(found):
    figure, axes = pyplot.subplots(figsize=(8, 3.8))
    bars(axes, [f"{int(n):,} in flight" for n in found], {
        "CreateUser": [of["ours"] for of in found.values()], "bare SQLite": [of["bare_sqlite"] for of in found.values()]})
    syncs = next(iter(found.values()))["fdatasync"]
    axes.axhline(syncs, color=GOAL_COLOR, linestyle="--", linewidth=1)
    axes.annotate(f"fdatasync of 4 KiB: {syncs:,.0f}", (-0.45, syncs), (-0.45, syncs * 3.2), color=GOAL_COLOR,
                  arrowprops={"arrowstyle": "-", "color": GOAL_COLOR})
    axes.set_title("Durable users created a second: more is better")
    return figure


def overload(found):
    figure, (goodput, late) = pyplot.subplots(1, 2, figsize=(9, 3.8))
    for (calls, of), color in zip(found.items(), PALETTE):
        times = [float(n) for n in of]
        goodput.plot(times, [run["goodput"] for run in of.values()], marker="o", label=calls, color=color)
        late.plot(times, [run["p99"] for run in of.values()], marker="o", color=color)
    goodput.axhline(0.9, color=GOAL_COLOR, linestyle="--", linewidth=1)
    late.axhline(3, color=GOAL_COLOR, linestyle="--", linewidth=1)
    goodput.set(ylim=(0, 1.05), title="Goodput, as a part of the peak")
    late.set(yscale="log", title="p99, x that of the unloaded server")
    late.set_yticks([1, 3, 10, 30, 100], ["1", "3 (goal)", "10", "30", "100"])
    goodput.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 1], ["0", "0.25", "0.50", "0.75", "0.90 (goal)", "1"])
    for axes in (goodput, late):
        axes.set_xticks([1, 2, 3], ["1x", "2x", "3x"])
        axes.set_xlabel("arrivals, x the peak")
        axes.minorticks_off()
        axes.grid(color="#e2e8f0")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def slow_commits(found):
    times = ["1", "2", "3", "10"]
    figure, axes = pyplot.subplots(figsize=(8, 3.8))
    for (store, of), color, marker in zip(found.items(), PALETTE * 2, "ooosss"):
        shown = [n for n in times if n in of]
        axes.plot([times.index(n) for n in shown], [of[n]["answered"] for n in shown], marker=marker, label=store, color=color)
    axes.plot(range(len(times)), [tables.ANSWERED_GOALS[n] for n in times], color=GOAL_COLOR, linestyle="--", linewidth=1, label="goal")
    axes.set_xticks(range(len(times)), [f"{n}x" for n in times])
    axes.set(ylim=(0, None), title="Creates answered in time, as a part of 256 a commit", xlabel="offered, x 256 a commit")
    axes.grid(color="#e2e8f0")
    axes.legend(fontsize=8)
    return figure


def postgres(found):
    runs = {f"{calls},\n{clients} in flight": of for calls, by in found.items() for clients, of in by.items()}
    figure, axes = pyplot.subplots(figsize=(8, 3.8))
    bars(axes, list(runs), {"ours": [of["ours"] for of in runs.values()], "pgbench": [of["pgbench"] for of in runs.values()]})
    axes.set_title("Calls a second on PostgreSQL: more is better")
    return figure


def protocols(found):
    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    names = {name: None for of in found.values() for name in of}
    height = 0.8 / len(names)
    for number, (name, color) in enumerate(zip(names, PALETTE)):
        spoken = [(at, of[name]) for at, of in enumerate(found.values()) if name in of]
        shown = axes.barh([at + (number - 1.5) * height for at, _ in spoken], [cpu for _, cpu in spoken], height, label=name, color=color)
        axes.bar_label(shown, fmt="{:.1f}", padding=2, fontsize=8)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend()
    axes.set_title("CPU of a GetUser in microseconds, by protocol: less is better")
    return figure


def access(found):
    of = dict(reversed(found["cpu_us"].items()))
    figure, axes = pyplot.subplots(figsize=(8, 2.6))
    shown = axes.barh(list(of), list(of.values()), color=[OURS_COLOR if name.startswith(tables.OURS) else OTHER_COLOR for name in of])
    axes.bar_label(shown, fmt="{:.2f}", padding=3)
    axes.margins(x=0.1)
    axes.set_title("CPU of a GetUser in microseconds, with TLS and tokens: less is better")
    return figure


def instructions(found):
    counts = found["per_call"]
    names = list(counts)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 2))
    shown = axes.barh(names, [counts[name] for name in names],
                      color=[OURS_COLOR if name == tables.OURS else OTHER_COLOR for name in names])
    axes.bar_label(shown, fmt="{:,.0f}", padding=3)
    axes.set_xlim(0, max(counts.values()) * 1.15)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title("Instructions of a GetUser in user space: fewer is better")
    return figure


def scale(found):
    figure, (collapse, row) = pyplot.subplots(1, 2, figsize=(9, 3.8))
    offered = found["overload"].pop("offered")
    for (queue, goodput), color in zip(found["overload"].items(), [OTHER_COLOR, OURS_COLOR]):
        collapse.plot(offered, goodput, marker="o", markersize=3, label=f"queue {queue}", color=color)
    collapse.plot(offered, offered, color=GOAL_COLOR, linestyle="--", linewidth=1, label="all of them")
    collapse.set(ylim=(0, 1100), title="Creates answered a second, 500 ms a commit", xlabel="offered a second")
    flushes = found["lanes"].pop("flush_ms")
    for (lanes, writes), color in zip(found["lanes"].items(), PALETTE):
        row.plot(flushes, writes, label=f"{lanes} lane" + "s" * (lanes != "1"), color=color)
    row.axhline(10_000, color=GOAL_COLOR, linestyle="--", linewidth=1)
    row.set(xscale="log", yscale="log", title="Writes a second that counter rows allow", xlabel="a flush, milliseconds")
    row.set_xticks([0.2, 1, 3, 10, 30, 60], ["0.2", "1", "3", "10", "30", "60"])
    row.set_yticks([3_000, 10_000, 30_000, 100_000, 300_000])
    row.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (collapse, row):
        axes.minorticks_off()
        axes.grid(color="#e2e8f0")
        axes.legend(fontsize=8)
    return figure


def bars(axes, groups, values):
    """Bars next to each other for each group, ours first."""
    width = 0.8 / len(values)
    for number, ((name, heights), color) in enumerate(zip(values.items(), [OURS_COLOR, OTHER_COLOR])):
        shown = axes.bar([at + (number - 0.5) * width for at in range(len(groups))], heights, width, label=name, color=color)
        axes.bar_label(shown, fmt="{:,.0f}", padding=2, fontsize=8,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.set_xticks(range(len(groups)), groups)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.12)
    axes.legend()


PLOTS = {plot.__name__: plot for plot in (peers, creates, overload, slow_commits, postgres, protocols, access, instructions, scale)}


def main():
    names = [name for name in sys.argv[1:] if name != "--record"] or list(PLOTS)
    record = "--record" in sys.argv[1:]
    # The same figures make the same file.
    pyplot.rcParams.update({"svg.hashsalt": "figures", "svg.fonttype": "none", "font.size": 9, "figure.constrained_layout.use": True,
                            "font.family": ["DejaVu Sans"], "axes.spines.top": False, "axes.spines.right": False})
    for name in filter(PLOTS.get, names):
        latest = figures.path(LATEST, name).exists()
        if not latest and not figures.path(RECORDED, name).exists():
            continue
        if record and latest:
            figures.keep(RECORDED, name, figures.read(LATEST, name))
        found = figures.read(LATEST if latest else RECORDED, name)
        folder = IMAGES if record else LATEST
        folder.mkdir(parents=True, exist_ok=True)
        PLOTS[name](found).savefig(folder / f"performance-{name}.svg", metadata={"Date": None, "Creator": None})
    if record:
        tables.main()


if __name__ == "__main__":
    matplotlib.use("svg")
    main()
