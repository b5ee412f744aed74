#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""plot.py <results.json> <directory>: draws the times measured with g++ as SVG files."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "txhooks", "svg.fonttype": "none", "font.size": 10})
import matplotlib.pyplot as plt  # noqa: E402

STYLES = {
    "floor": ("floor: preallocated, no checks", "0.6", ":"),
    "txhooks": ("txhooks", "tab:red", "-"),
    "vector_of_function": ("vector<function> by hand", "tab:blue", "-"),
    "vector_of_move_only_function": ("vector<move_only_function> by hand", "tab:cyan", "-"),
    "vector_per_savepoint": ("a vector for each savepoint", "tab:green", "-"),
    "django_way": ("Django's way, in C++", "tab:orange", "-"),
    "signals2": ("Boost.Signals2", "tab:purple", "-"),
    "django": ("Django (Python, SQLite)", "tab:olive", "--"),
    "sequel": ("Sequel (Ruby, SQLite)", "tab:brown", "--"),
}

PLOTS = {
    "hooks": ("Registering and running hooks", "hooks in one transaction", "nanoseconds for each hook"),
    "depth": ("Blocks in one another, each with a hook", "nesting depth", "nanoseconds for each block"),
    "savepoints": (
        "Savepoints in one transaction, each with a hook, half of them rolled back",
        "savepoints in one transaction",
        "nanoseconds for each savepoint",
    ),
}


def save(figure, path):
    for axes in figure.axes:
        axes.grid(True, which="major", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close(figure)


def main():
    results = json.loads(Path(sys.argv[1]).read_text())
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    compiler = next(name for name in ("g++", "clang++") if name in results)
    figures = {**results[compiler], **results["others"]}

    for kind, (title, across, up) in PLOTS.items():
        figure, axes = plt.subplots(figsize=(8, 4.5))
        for subject, (label, color, style) in STYLES.items():
            prefix = f"{kind}/{subject}/"
            points = sorted((int(name[len(prefix):]), time) for name, time in figures.items() if name.startswith(prefix))
            if points:
                counts, each = zip(*((count, time / count) for count, time in points))
                axes.loglog(counts, each, style, color=color, marker="o", markersize=3, label=label,
                            linewidth=2.5 if subject == "txhooks" else 1.5)
        axes.set(title=title, xlabel=across, ylabel=up)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        save(figure, directory / f"{kind}.svg")


if __name__ == "__main__":
    main()
