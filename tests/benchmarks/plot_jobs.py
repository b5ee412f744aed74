#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""plot_jobs.py <jobs.json> <directory>: draws what jobs.py has measured as SVG files, those topics that are there."""

import json
import sys
from pathlib import Path
from statistics import median

from plot import plt, save

ENGINES = {"postgres": ("PostgreSQL", "tab:blue"), "mariadb": ("MariaDB", "tab:orange"), "sqlite": ("SQLite", "tab:green")}


def drain(found):
    names = list(next(iter(found.values()))["rates"])
    figure, axes = plt.subplots(figsize=(8, 3.5))
    for place, (disk, color) in enumerate({"fsync on": "tab:red", "fsync off": "tab:pink"}.items()):
        rates = [median(found[disk]["rates"][name]) for name in names]
        bars = axes.barh([at + 0.4 * place for at in range(len(names))], rates, 0.38, color=color, label=disk)
        axes.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=8)
    labels = [name if name in found["fsync on"]["tried"] else f"txhooks, {name}" for name in names]
    axes.set_yticks([at + 0.2 for at in range(len(names))], labels)
    axes.invert_yaxis()
    axes.set(title="30,000 jobs that do nothing, PostgreSQL", xlabel="jobs a second")
    axes.margins(x=0.12)
    axes.legend(frameon=False)
    return figure


def claims(found):
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for engine, (label, color) in ENGINES.items():
        counts = [10**power for power in range(3, 7)]
        for share, style in {"median": "-", "p99": ":"}.items():
            times = [found[engine][f"{count}/{share}"] / 1000 for count in counts]
            text = label if share == "median" else f"{label}, 99 of 100 within"
            axes.loglog(counts, times, style, color=color, marker="o", markersize=3, label=text)
    axes.set(title="A claim of 50 jobs", xlabel="jobs that wait", ylabel="milliseconds")
    ticks = [0.2, 0.5, 1, 2, 5, 10]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def backlog(found):
    figure, axes = plt.subplots(figsize=(8, 4))
    samples = found["samples"]
    axes.plot(samples["seconds"], samples["backlog"], color="tab:red")
    axes.axvline(found["produced"], color="0.5", linestyle=":")
    axes.text(found["produced"], axes.get_ylim()[1], " the last job is added", va="top", fontsize=8)
    for seconds, act in found["events"]:
        axes.axvline(seconds, color="tab:green" if act == "start" else "0.6", linewidth=0.8)
        axes.text(seconds, axes.get_ylim()[1], act, rotation=90, va="bottom", ha="center", fontsize=8)
    axes.set(xlabel="seconds", ylabel="jobs due, or being run")
    axes.set_ylim(bottom=0)
    figure.suptitle(f"{found['rate']:.0f} jobs a second, three workers that are killed and come back", y=1.04)
    return figure


def day(found):
    samples = found["samples"]
    minutes = [seconds / 60 for seconds in samples["seconds"]]
    figure, (sizes, dead, claim) = plt.subplots(3, 1, figsize=(8, 7), sharex=True)
    for name, label in {"table": "table", "indexes": "indexes"}.items():
        sizes.plot(minutes, [size / 1e6 for size in samples[name]], label=label)
    sizes.set(title=f"A million jobs in {found['minutes']:g} minutes", ylabel="MB")
    sizes.legend(frameon=False)
    dead.plot(minutes, samples["dead"], color="tab:gray", label="dead rows")
    dead.plot(minutes, samples["backlog"], color="tab:red", label="backlog")
    dead.set(ylabel="rows")
    dead.legend(frameon=False)
    claim.plot([seconds / 60 for seconds, _ in found["claims"]], [time / 1000 for _, time in found["claims"]], ".", markersize=2)
    claim.set(xlabel="minutes", ylabel="a claim, milliseconds")
    for axes in (sizes, dead, claim):
        axes.set_ylim(bottom=0)
    return figure


def main():
    found = json.loads(Path(sys.argv[1]).read_text())
    for name, draw in {"drain": drain, "claims": claims, "backlog": backlog, "day": day}.items():
        if name in found:
            save(draw(found[name]), Path(sys.argv[2]) / f"{name}.svg")


main()
