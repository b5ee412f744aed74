#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what `run` has built, and prints figures, goals and verdicts.

measure.py [--gate [--record]] <compiler>=<build directory>...

Prints the table, writes results.json and table.md into --out, and the tables into README.md. With --gate: only what is
exact, against limits.json; exits with 1 when a limit is exceeded. --record writes what was measured as the new limits.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
LIMITS = HERE / "limits.json"
MARGIN = 1.03
REPETITIONS = 15
# Measured to compare with, and not ours to limit.
PEERS = ("floor/", "vector_of_function/", "nesting_guard", "code/vector/", "include/functional_lines", "sqlite/transaction")
CORES = os.cpu_count() or 1


def output_of(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


def progress(text):
    print(text, file=sys.stderr, flush=True)


# ---- Instructions: callgrind counts them, the same in every run


def counted(*command, cwd=None):
    errors = output_of(
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command, cwd=cwd
    ).stderr
    return int(re.search(r"Collected : (\d+)", errors).group(1))


# What is counted: program, case, the case of the same shape with nothing in it, transactions, items in each of them.
COUNTED = {}
for subject in ("floor/8", "floor/24", "hook_list/8", "hook_list/24", "connection/8", "connection/24",
                "erased_connection/24", "vector_of_function/8", "vector_of_function/24"):
    COUNTED[subject] = ("instructions", subject, "no_hooks", 50, 1000)
for depth in (100, 1000):
    COUNTED[f"hook_list_levels/{depth}"] = ("instructions", f"hook_list_levels/{depth}", f"no_levels/{depth}", 10, depth)
    COUNTED[f"connection_levels/{depth}"] = ("instructions", f"connection_levels/{depth}", f"no_blocks/{depth}", 10, depth)
for count in (1000, 100000):
    for subject in ("hook_list_savepoints", "connection_savepoints"):
        COUNTED[f"{subject}/{count}"] = ("instructions", f"{subject}/{count}", None, 2, count)
for subject in ("nesting_guard", "block", "erased_block", "block_hook/24", "function_block"):
    COUNTED[subject] = ("instructions", subject, "no_block", 1000, 1)
ENDS = ("committed/on_commit/1", "committed/before_commit/1", "committed/before_commit/2", "committed/on_rollback/1",
        "rolled_back/on_commit/1", "rolled_back/on_rollback/1", "rolled_back/on_rollback/2")
for subject in ENDS:
    COUNTED[subject] = ("instructions", subject, None, 1000, 1)
for subject in ("transaction", "text_block", "text_block_hook/24", "shipped_block", "shipped_block_hook/24",
                "counting_block_hook/24"):
    COUNTED[f"sqlite/{subject}"] = ("instructions_sqlite", subject, None, 500, 1)
for subject in ("without", "with"):
    COUNTED[f"outbox/{subject}"] = ("instructions_outbox", subject, None, 1000, 1)


def count_instructions(build, subjects=tuple(COUNTED)):
    runs = set()
    for program, case, empty, times, _ in map(COUNTED.get, subjects):
        for name in filter(None, (case, empty)):
            runs |= {(program, name, times), (program, name, 2 * times)}
    runs = sorted(runs)
    with ThreadPoolExecutor(CORES) as pool:
        totals = dict(zip(runs, pool.map(lambda run: counted(build / run[0], run[1], run[2]), runs)))

    def cost(program, case, times):
        return totals[program, case, 2 * times] - totals[program, case, times] if case else 0

    def each(program, case, empty, times, items):
        return (cost(program, case, times) - cost(program, empty, times)) / (times * items)

    return {name: each(*COUNTED[name]) for name in subjects}


# ---- What including a header costs the compiler

FLAGS = ["-std=c++20", "-O2", f"-I{INCLUDE}"]


def preprocessed_lines(compiler, text):
    output = output_of(compiler, *FLAGS, "-E", "-P", "-x", "c++", "-", input=text).stdout
    return sum(1 for line in output.splitlines() if line.strip())


def compiler_instructions(compiler, text):
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "source.cpp"
        source.write_text(text + "\n")
        plan = output_of(compiler, *FLAGS, "-###", "-S", "-o", os.devnull, source).stderr
        command = next(line for line in plan.splitlines() if "cc1plus" in line)
        return counted(*[word.strip('"') for word in command.split()])


def count_include(compiler):
    empty, functional, txhooks = "", "#include <functional>", "#include <txhooks/txhooks.hpp>"
    figures = {
        "include/lines": preprocessed_lines(compiler, txhooks),
        "include/functional_lines": preprocessed_lines(compiler, functional),
    }
    if "clang" in compiler:
        return figures
    with ThreadPoolExecutor(CORES) as pool:
        cost = dict(zip((empty, functional, txhooks), pool.map(lambda text: compiler_instructions(compiler, text), (empty, functional, txhooks))))
    figures["include/over_functional"] = (cost[txhooks] - cost[empty]) / (cost[functional] - cost[empty])
    return figures


# ---- Object code for each distinct lambda

CODE = {
    "txhooks": """
#include <txhooks/txhooks.hpp>
struct Backend { void begin(); txhooks::CommitResult commit() noexcept; void rollback(); };
using Hooks = txhooks::HookedConnection<Backend>;
#define REGISTER on_commit
""",
    "erased": """
#include <txhooks/txhooks.hpp>
using Hooks = txhooks::Connection;
#define REGISTER on_commit
""",
    "hook_list": """
#include <txhooks/hook_list.hpp>
using Hooks = txhooks::HookList;
#define REGISTER push
""",
    "vector": """
#include <functional>
#include <vector>
using Hooks = std::vector<std::function<void()>>;
#define REGISTER push_back
""",
}
LAMBDAS = {
    8: "void f{n}(Hooks& hooks, long* p) {{ hooks.REGISTER([p] {{ *p += {n}; }}); }}\n",
    24: "void f{n}(Hooks& hooks, long* p, long a, long b) {{ hooks.REGISTER([p, a, b] {{ *p += a * b + {n}; }}); }}\n",
}


def code_size(compiler, prelude, function, count, directory):
    source = directory / "code.cpp"
    source.write_text(prelude + "".join(function.format(n=n) for n in range(1, count + 1)))
    output_of(compiler, "-std=c++20", "-O2", f"-I{INCLUDE}", "-c", source, "-o", directory / "code.o")
    return int(output_of("size", directory / "code.o").stdout.splitlines()[1].split()[0])


def count_code(compiler):
    few, many = 50, 150

    def per_lambda(job):
        subject, capture = job
        with tempfile.TemporaryDirectory() as directory:
            sizes = [
                code_size(compiler, CODE[subject], LAMBDAS[capture], count, Path(directory)) for count in (few, many)
            ]
        return (sizes[1] - sizes[0]) / (many - few)

    jobs = [(subject, capture) for subject in CODE for capture in LAMBDAS]
    with ThreadPoolExecutor(CORES) as pool:
        return {f"code/{subject}/{capture}": size for (subject, capture), size in zip(jobs, pool.map(per_lambda, jobs))}


# ---- Memory and times


def memory(build, *arguments):
    lines = output_of(build / "memory", *arguments).stdout.splitlines()
    return {name: float(value) for name, value in map(str.split, lines)}


def exact(compiler, build):
    progress(f"{compiler}: counting instructions, allocations, lines and bytes ...")
    figures = count_instructions(build)
    for name in ("text_block", "text_block_hook/24"):
        figures[f"sqlite/own_of_{name}"] = figures[f"sqlite/{name}"] - figures["sqlite/transaction"]
    figures.update(memory(build, "--exact"))
    figures.update(count_include(compiler))
    figures.update(count_code(compiler))
    return figures


def times(build, program, repetitions, seconds, clock="cpu_time"):
    """The shortest of the repetitions, which are interleaved at random, in nanoseconds."""
    report = build / f"{program}.json"
    output_of(
        build / program,
        f"--benchmark_repetitions={repetitions}",
        "--benchmark_enable_random_interleaving=true",
        f"--benchmark_min_time={seconds}",
        f"--benchmark_out={report}",
        "--benchmark_out_format=json",
        cwd=build,
    )
    shortest = {}
    for run in json.loads(report.read_text())["benchmarks"]:
        if run["run_type"] != "iteration":
            continue
        name = run["run_name"]
        shortest[name] = min(shortest.get(name, float("inf")), run[clock])
    return shortest


def scripts():
    """What the packages of other languages take, those that are installed."""
    found = {}
    for name, command in {
        "django": ["/usr/bin/python3", HERE / "django_on_commit.py"],
        "sequel": ["ruby", HERE / "sequel_after_commit.rb"],
    }.items():
        done = None
        if shutil.which(command[0]):
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done is None or done.returncode != 0:
            progress(f"not compared with {name}: {done.stderr.strip().splitlines()[-1] if done else 'not installed'}")
            continue
        found.update(json.loads(done.stdout))
    return found


# ---- Figures, goals and verdicts


class Goal:
    """A figure, the limit for each compiler (or one for all), and whether it is to be below or above."""

    def __init__(self, text, value, limit, at_least=False, unit="", only=None):
        self.text, self.value, self.limit = text, value, limit
        self.at_least, self.unit, self.only = at_least, unit, only

    def for_compiler(self, compiler):
        return self.limit[compiler] if isinstance(self.limit, dict) else self.limit

    def goal(self):
        sign = ">=" if self.at_least else "<="
        if isinstance(self.limit, dict):
            return f"{sign} " + " / ".join(f"{limit:g}" for limit in self.limit.values()) + self.unit
        return f"{sign} {self.limit:g}{self.unit}"

    def reached(self, compiler, figures):
        value, limit = self.value(figures), self.for_compiler(compiler)
        return value >= limit if self.at_least else value <= limit


def by_compiler(gcc, clang):
    return {"g++": gcc, "clang++": clang}


def ratio(above, below):
    return lambda f: f[above] / f[below]


def goals():
    result = []

    def add(*arguments, **options):
        result.append(Goal(*arguments, **options))

    for size, limits in {8: by_compiler(26, 27), 24: by_compiler(30, 32)}.items():
        for text, name in {"HookList": "hook_list", "on_commit": "connection"}.items():
            add(f"register + fire, 1000 hooks, {size} bytes, {text}: instructions", lambda f, n=f"{name}/{size}": f[n], limits)
            add("... over the floor", ratio(f"{name}/{size}", f"floor/{size}"), 1.75, unit=" x")
    add("the same, 24 bytes, time: faster than vector<function>, one for each transaction",
        ratio("hooks/vector_of_function/1000", "hooks/txhooks/1000"), 4, at_least=True, unit=" x")
    add("... than vector<function> that keeps its memory",
        ratio("hooks/kept_vector_of_function/1000", "hooks/txhooks/1000"), 4, at_least=True, unit=" x")
    add("... than Boost.Signals2", ratio("hooks/signals2/1000", "hooks/txhooks/1000"), 40, at_least=True, unit=" x")
    add("nested level with its hook, HookList: instructions", lambda f: f["hook_list_levels/1000"], 28)
    for text, name in {"HookList": "hook_list_levels", "Atomic": "connection_levels"}.items():
        add(f"... depth 1000 / depth 100, {text}, for each level", ratio(f"{name}/1000", f"{name}/100"), 1.05, unit=" x")
    add("100k savepoints, half rolled back / 1k, for each: instructions",
        ratio("connection_savepoints/100000", "connection_savepoints/1000"), 1.3, unit=" x")
    add("... time", lambda f: f["savepoints/txhooks/100000"] / f["savepoints/txhooks/1000"] / 100, 1.3, unit=" x")
    add("Atomic, no hook, over a bare nesting guard: instructions",
        lambda f: f["block"] - f["nesting_guard"], by_compiler(8, 18))
    add("Atomic with one 24 byte hook: instructions", lambda f: f["block_hook/24"], 110)
    add("one hook before COMMIT, over one after it, 24 bytes: instructions",
        lambda f: f["committed/before_commit/1"] - f["committed/on_commit/1"], by_compiler(302, 350))
    add("... each further one", lambda f: f["committed/before_commit/2"] - f["committed/before_commit/1"], 150)
    add("one rollback hook in a block that commits, over a commit hook: instructions",
        lambda f: f["committed/on_rollback/1"] - f["committed/on_commit/1"], 72)
    add("... that runs, over a commit hook that is discarded",
        lambda f: f["rolled_back/on_rollback/1"] - f["rolled_back/on_commit/1"], by_compiler(154, 185))
    add("... each further one", lambda f: f["rolled_back/on_rollback/2"] - f["rolled_back/on_rollback/1"], 150)
    add("SQLite by text, no hook, against SQLite::Transaction: instructions",
        ratio("sqlite/text_block", "sqlite/transaction"), 1.005, unit=" x")
    add("... one hook", ratio("sqlite/text_block_hook/24", "sqlite/transaction"), 1.015, unit=" x")
    add("SQLite as shipped, one hook, faster than SQLite::Transaction without: empty",
        ratio("empty/sqlitecpp", "empty/txhooks"), 2, at_least=True, unit=" x")
    add("... empty, cheapest witness", ratio("empty/sqlitecpp", "empty/txhooks_counting"), 4.5, at_least=True, unit=" x")
    add("... one INSERT", ratio("insert/sqlitecpp", "insert/txhooks"), 1.3, at_least=True, unit=" x")
    add("... time of a bulk UPDATE in WAL mode, over its time",
        ratio("bulk_wal/txhooks", "bulk_wal/sqlitecpp"), 1.2, unit=" x")
    add("... nested, faster than SQLite::Savepoint", ratio("savepoint/sqlitecpp", "savepoint/txhooks"), 3.5, at_least=True, unit=" x")
    add("allocations in steady state", lambda f: f["allocations/steady"], 0)
    add("... hooks that open blocks", lambda f: f["allocations/steady_reentrant"], 0)
    add("... first transaction, 448 bytes of hooks", lambda f: f["allocations/first_448_bytes"], 0)
    add("... first 100k hooks", lambda f: f["allocations/first_100k"], 20)
    add("worst registration among a million, against vector<function>",
        ratio("worst_registration_ns/txhooks", "worst_registration_ns/vector_of_function"), 1 / 20, unit=" x")
    add("#include <txhooks/txhooks.hpp> against <functional>: instructions of the compiler",
        lambda f: f["include/over_functional"], 0.25, unit=" x", only="g++")
    add("... preprocessed lines", lambda f: f["include/lines"], 4500, only="g++")
    for size in (8, 24):
        add(f"object code of a lambda, {size} bytes, against vector<function>",
            ratio(f"code/txhooks/{size}", f"code/vector/{size}"), 0.4, unit=" x")
    add("memory of a million 24 byte hooks", lambda f: f["memory/million_hooks"] / 1e6, 34, unit=" MB")
    add("... kept once smaller transactions have given it back", lambda f: f["memory/kept_after_small"] / 1e6, 0.1, unit=" MB")
    add("... page faults of 5 equal transactions", lambda f: f["memory/faults_of_5_equal"], 0)
    return result


def number(value):
    if value == round(value):
        return f"{value:.0f}"
    return f"{value:.4g}" if value >= 0.001 else f"{value:.6f}"


def table(measured):
    rows = [["figure", "goal"] + [cell for compiler in measured for cell in (compiler, "verdict")]]
    missed = 0
    for goal in goals():
        row = [goal.text, goal.goal()]
        for compiler, figures in measured.items():
            if goal.only not in (None, compiler):
                row += ["", ""]
                continue
            reached = goal.reached(compiler, figures)
            missed += not reached
            row += [number(goal.value(figures)), "reached" if reached else "MISSED"]
        rows.append(row)
    return rows, missed


def markdown(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


SUBJECTS = {
    "floor": "floor",
    "txhooks": "txhooks",
    "hook_list": "txhooks: HookList alone",
    "vector_of_function": "vector<function>, one for each transaction",
    "kept_vector_of_function": "vector<function> that keeps its memory",
    "vector_of_move_only_function": "vector<move_only_function>, one for each transaction",
    "vector_per_savepoint": "a vector for each savepoint",
    "django_way": "Django's way, in C++",
    "signals2": "Boost.Signals2",
    "django": "Django itself (Python, SQLite)",
    "sequel": "Sequel (Ruby, SQLite)",
}


def comparison(times_of_one):
    """Nanoseconds for each hook, level and savepoint."""
    columns = [("hooks", 1), ("hooks", 1000), ("hooks", 100000), ("depth", 10), ("depth", 1000), ("savepoints", 1000),
               ("savepoints", 100000)]
    rows = [["nanoseconds for each"] + [f"{kind} of {count}" for kind, count in columns]]
    for subject, text in SUBJECTS.items():
        cells = [times_of_one.get(f"{kind}/{subject}/{count}") for kind, count in columns]
        if any(cells):
            shown = [number(cell / count) if cell else "" for cell, (_, count) in zip(cells, columns)]
            rows.append([text] + shown)
    return rows


def write_page(name, text):
    """Puts `text` between <!-- name --> and <!-- /name --> of the README."""
    page = HERE / "README.md"
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = page.read_text().split(start)
    after = rest.split(end)[1]
    escaped = text.replace("<", "&lt;")
    page.write_text(f"{before}{start}\n\n{escaped}\n{end}{after}")


# ---- The gate


def version(compiler):
    return f"{Path(compiler).name} {output_of(compiler, '-dumpversion').stdout.split('.')[0].strip()}"


def gate(builds, record):
    limits = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    passed = failures = 0
    for compiler, build in builds.items():
        key = version(compiler)
        figures = {
            name: round(value, 3) for name, value in exact(compiler, build).items() if not name.startswith(PEERS)
        }
        if record:
            limits[key] = figures
            print(f"{key}: recorded {len(figures)} limits")
            continue
        if key not in limits:
            print(f"FAILED: no limits for {key}; record them with ./tests/benchmarks/run --gate --record")
            failures += 1
            continue
        for name in sorted(figures.keys() | limits[key].keys()):
            value, limit = figures.get(name), limits[key].get(name)
            if value is None or limit is None or value > limit * MARGIN:
                print(f"FAILED: {key}: {name} is {value}, the limit is {limit} and {MARGIN - 1:.0%}")
                failures += 1
                continue
            passed += 1
            if value < limit / MARGIN:
                print(f"{key}: {name} is {value}, better than its limit {limit}")
    if record:
        LIMITS.write_text(json.dumps(limits, indent=1, sort_keys=True) + "\n")
    else:
        print(f"{passed} passed, {failures} failed")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("builds", nargs="+", help="compiler=build directory")
    arguments = parser.parse_args()
    builds = {compiler: Path(build).resolve() for compiler, build in (b.split("=", 1) for b in arguments.builds)}

    if arguments.gate:
        sys.exit(1 if gate(builds, arguments.record) else 0)

    measured = {}
    for compiler, build in builds.items():
        figures = exact(compiler, build)
        progress(f"{compiler}: measuring memory ...")
        figures.update(memory(build))
        progress(f"{compiler}: measuring times ...")
        figures.update(times(build, "time", REPETITIONS, 0.02))
        figures.update(times(build, "time_sqlite", REPETITIONS, 0.1))
        measured[compiler] = figures
    progress("measuring the packages of other languages ...")
    others = scripts()

    rows, missed = table(measured)
    figures_and_goals = markdown(rows) + "\n"
    against_others = "\n".join(
        f"{version(compiler)}, the shortest of {REPETITIONS} interleaved repetitions:\n\n"
        f"{markdown(comparison({**figures, **others}))}\n"
        for compiler, figures in measured.items()
    )
    text = figures_and_goals + "\n" + against_others
    write_page("table", figures_and_goals)
    write_page("comparison", against_others)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text(text)
    (arguments.out / "results.json").write_text(json.dumps({**measured, "others": others}, indent=1, sort_keys=True))
    print(text)
    print(f"{missed} figures miss their goal" if missed else "every figure reaches its goal")


if __name__ == "__main__":
    main()
