#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures jobs, on servers of its own: jobs.py <directory of what `run` has built> <topic>...

Prints a table for each topic, writes it into README.md, and all numbers into jobs.json beside that directory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from measure import HERE, compiler_instructions, count_instructions, markdown, number, output_of, progress, write_page

SERVERS = HERE.parent / "support" / "servers"
# Large enough that no checkpoint falls into a measurement because of its size.
SETTINGS = {
    "postgres": ["fsync=on", "full_page_writes=on", "shared_buffers=256MB", "max_wal_size=4GB"],
    "mariadb": ["innodb-buffer-pool-size=256M", "innodb-log-file-size=256M"],
}
ENGINES = {"postgres": "PostgreSQL", "mariadb": "MariaDB", "sqlite": "SQLite"}


class Bench:
    def __init__(self, build):
        self.build = build
        self.preload = build / "libslow_flush.so"
        self.folder = build.parent

    def figures(self, program, *arguments, **environment):
        """What a program prints: a name and a number in each line."""
        output = output_of(self.build / f"jobs_{program}", *arguments, cwd=self.folder, env={**os.environ, **environment})
        return {name: float(value) for name, value in map(str.split, output.stdout.splitlines())}


@contextmanager
def server(kind, **environment):
    """Starts one, and yields what its clients look for in the environment."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / kind
        command = [SERVERS / kind, "start", place, "--watch", str(os.getpid()), *SETTINGS[kind]]
        subprocess.run(command, check=True, env={**os.environ, **environment})
        try:
            yield {f"TXHOOKS_{kind.upper()}": str(place)}
        finally:
            subprocess.run([SERVERS / kind, "stop", place], check=True)


def psql_environment(found):
    place = Path(found["TXHOOKS_POSTGRES"]).resolve()
    port, password = ((place / name).read_text().strip() for name in ("port", "password"))
    return {**os.environ, "PGHOST": str(place), "PGPORT": port, "PGUSER": "postgres", "PGPASSWORD": password}


def psql(found, sql, database="postgres"):
    return output_of("psql", "-XAtqc", sql, database, env=psql_environment(found)).stdout.strip()


# ---- Figures, goals and verdicts


def row(text, value, limit=None, at_least=False, unit=""):
    goal = verdict = ""
    if limit is not None:
        goal = f"{'>=' if at_least else '<='} {limit:g}{unit}"
        verdict = "reached" if (value >= limit if at_least else value <= limit) else "MISSED"
    return [text, goal, f"{value:,.0f}" if value >= 1000 else number(value), verdict]


# ---- Topics: each returns its numbers, and the rows of its table


def price(bench):
    kinds = {
        ("sqlite", "durable"): ("SQLite, WAL, synchronous = FULL", 1.05, 1.1),
        ("postgres", "durable"): ("PostgreSQL, synchronous_commit = on", 1.05, 1.1),
        ("mariadb", "durable"): ("MariaDB, innodb_flush_log_at_trx_commit = 1", 1.05, 2.0),
        ("sqlite", "lazy"): ("SQLite, WAL, synchronous = NORMAL", 1.6, None),
        ("postgres", "lazy"): ("PostgreSQL, synchronous_commit = off", 1.45, None),
        ("mariadb", "lazy"): ("MariaDB, innodb_flush_log_at_trx_commit = 2", 1.35, None),
    }
    figures, rows = {}, []
    for disk, slow in {"this disk": {}, "EMULATED disk, flushes in 2 ms": {"LD_PRELOAD": str(bench.preload)}}.items():
        with server("postgres", **slow) as postgres, server("mariadb", **slow) as mariadb:
            for (engine, durability), (text, job_goal, here_goal) in kinds.items():
                if slow and durability == "lazy":
                    continue
                found = bench.figures("price", engine, durability, **slow, **postgres, **mariadb)
                if slow and found["least"] < 2000:
                    sys.exit(f"FAILED: {engine}: a block took {found['least']:.0f} µs; its flush is not one that was slowed down")
                figures[f"{engine}/{durability}/{disk}"] = found
                where = f"{text}; {disk}" if durability == "durable" else text
                rows += [
                    row(f"{where}: a block with one INSERT, µs", found["block"]),
                    row("... and a job, over it", found["one_job"], job_goal, unit=" x"),
                    row("... and ten jobs", found["ten_jobs"], unit=" x"),
                    row("... and a job that is run and completed here", found["run_here"], here_goal, unit=" x"),
                ]
    return figures, rows


# What is tried of each, around what their documentation has; the fastest is then compared.
PEERS = {
    "graphile-worker 0.16.6": ("graphile-worker", [{"concurrentJobs": jobs} for jobs in (24, 10, 48)]),
    "graphile-worker 0.17.3": (
        "graphile-worker-with-batches",
        [
            {"concurrentJobs": jobs, "localQueue": {"size": size}, "completeJobBatchDelay": delay}
            for jobs, size, delay in ((10, 11, 25), (24, 500, 0), (24, 2000, 0))
        ],
    ),
    **{
        f"pg-boss 10.4.2, {text}": (
            "pg-boss",
            [{"workers": workers, "batchSize": size} for size in sizes for workers in (1, 4)],
        )
        for text, sizes in {"batches of 50": (50,), "batches of thousands": (1000, 5000)}.items()
    },
}
OURS = {"1 worker": (1, 1), "4 workers": (4, 1), "4 threads": (1, 4)}
DRAINED = 30000
ROUNDS = 5


def install_peers(bench):
    """Their folder, or None."""
    node = shutil.which("node") and output_of("node", "--version").stdout.strip()
    if not node or not shutil.which("npm") or int(node[1:].split(".")[0]) < 20:
        progress(f"not compared with graphile-worker and pg-boss: they need npm and Node 20; here is {node or 'no Node'}")
        return None
    folder = bench.folder / "peers"
    shutil.copytree(HERE / "jobs" / "peers", folder, dirs_exist_ok=True)
    progress("installing graphile-worker and pg-boss ...")
    output_of("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", cwd=folder)
    return folder


def drain(bench):
    peers = install_peers(bench)
    figures, rows = {}, []

    with server("postgres") as postgres:

        def ours(processes, threads):
            bench.figures("workers", "fill", "drain", DRAINED, **postgres)
            return DRAINED / bench.figures("workers", "drain", "drain", processes, threads, DRAINED, **postgres)["seconds"]

        def peer(library, jobs, settings):
            environment = {**psql_environment(postgres), "PGDATABASE": library, "NO_LOG_SUCCESS": "1"}
            output = output_of("node", "drain.mjs", library, jobs, json.dumps(settings), cwd=peers, env=environment)
            return jobs / float(output.stdout.split()[-1])

        psql(postgres, "CREATE DATABASE drain")
        if peers:
            for library in {library for library, _ in PEERS.values()}:
                psql(postgres, f'CREATE DATABASE "{library}"')
        for fsync in ("on", "off"):
            psql(postgres, f"ALTER SYSTEM SET fsync = {fsync}")
            psql(postgres, "SELECT pg_reload_conf()")
            while psql(postgres, "SHOW fsync") != fsync:
                time.sleep(0.1)
            subjects = {name: lambda how=how: ours(*how) for name, how in OURS.items()}
            tried, chosen = {}, {}
            for name, (library, all_settings) in PEERS.items() if peers else ():
                progress(f"fsync {fsync}: which settings are best for {name} ...")
                tried[name] = {json.dumps(each): peer(library, DRAINED // 2, each) for each in all_settings}
                chosen[name] = max(tried[name], key=tried[name].get)
                best = json.loads(chosen[name])
                subjects[name] = lambda library=library, best=best: peer(library, DRAINED, best)
            rates = {name: [] for name in subjects}
            for turn in range(ROUNDS):
                progress(f"fsync {fsync}: draining, {turn + 1} of {ROUNDS} ...")
                for name, rate in subjects.items():
                    rates[name].append(rate())
            figures[f"fsync {fsync}"] = {"rates": rates, "tried": tried}

            def over(name, base):
                return median(a / b for a, b in zip(rates[name], rates[base]))

            rows.append(row(f"fsync {fsync}: jobs a second, 1 worker", median(rates["1 worker"])))
            for name in tried:
                goal = 5 if "boss" in name else 4
                settings = chosen[name].translate(str.maketrans("", "", '{}"'))
                rows.append(row(f"... {name} ({settings})", median(rates[name])))
                rows.append(row("... 1 worker over that", over("1 worker", name), goal, at_least=True, unit=" x"))
            rows.append(row("... 4 workers over 1", over("4 workers", "1 worker"), 1.5, at_least=True, unit=" x"))
            rows.append(row("... 4 threads of one process over 1", over("4 threads", "1 worker"), unit=" x"))
    return figures, rows


def claims(bench):
    figures, rows = {}, []
    with server("postgres") as postgres, server("mariadb") as mariadb:
        for engine, text in ENGINES.items():
            progress(f"claims on {text} ...")
            found = figures[engine] = bench.figures("claims", engine, **postgres, **mariadb)
            base = found["1000/median"]
            rows.append(row(f"{text}: a claim of 50 among 1,000 that wait, µs", base))
            rows.append(row("... among 1,000,000, over that", found["1000000/median"] / base, 1.5, unit=" x"))
            if "snapshot/median" in found:
                rows.append(row("... behind 40,000 dead rows under a held snapshot", found["snapshot/median"] / base, 1.2, unit=" x"))
            rows.append(row("... beside 200,000 of a name that nobody handles", found["unhandled/median"] / base, 1.2, unit=" x"))
            rows += [
                row(f"... {where}, 99 of 100 within, µs", found[f"{name}/p99"])
                for name, where in {"1000": "among 1,000", "1000000": "among 1,000,000", "snapshot": "behind dead rows"}.items()
                if f"{name}/p99" in found
            ]
    return figures, rows


def wake_up(bench):
    figures, rows = {}, []
    with server("postgres") as postgres, server("mariadb") as mariadb:
        for engine, text in ENGINES.items():
            progress(f"waking up on {text} ...")
            found = figures[engine] = bench.figures("wake_up", engine, **postgres, **mariadb)
            rows += [
                row(f"{text}: from COMMIT to the handler, in this process, ms", found["here/median"] / 1000, 1, unit=" ms"),
                row("... 99 of 100 within, ms", found["here/p99"] / 1000),
                row("... in another process, of the time after which it looks again", found["elsewhere/median"] / found["poll"], unit=" x"),
                row("... 99 of 100 within, of that time", found["elsewhere/p99"] / found["poll"], 1, unit=" x"),
            ]
    return figures, rows


# ---- Traffic: producers at a steady rate, and workers

NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
LOOKED = ("seconds", "backlog", "rows", "table", "indexes", "dead")
LOOKS = f"""SELECT extract(epoch FROM clock_timestamp()), count(*) FILTER (WHERE due <= {NOW} OR holder IS NOT NULL), count(*),
    pg_table_size('txhooks_job'), pg_indexes_size('txhooks_job'), pg_stat_get_dead_tuples('txhooks_job'::regclass)
    FROM txhooks_job"""


@contextmanager
def started(command, **options):
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def numbers_in(path):
    return [list(map(float, line.split())) for line in path.read_text().splitlines()]


def traffic(bench, rate, jobs, workers, every, acts=()):
    """Adds so many jobs at this rate while `workers` run them, looks at the table at times, and does each (seconds, act)."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = stack.enter_context(server("postgres"))
        psql(found, "CREATE DATABASE traffic")
        bench.figures("workers", "fill", "traffic", 0, **found)  # makes the table
        psql(found, "CREATE TABLE booked (number BIGINT)", "traffic")
        claims = stack.enter_context(open(folder / "claims", "a"))
        looks = stack.enter_context(open(folder / "looks", "w"))

        def start(*words, **options):
            command = [bench.build / "jobs_workers", *words]
            return stack.enter_context(started(command, env={**os.environ, **found}, **options))

        def start_workers(count):
            return [start("work", "traffic", folder / "written", stdout=claims) for _ in range(count)]

        # psql looks again and again by itself: no new process each time.
        watching = ["psql", "-XAtq", "-F", " ", "traffic"]
        watching = stack.enter_context(
            started(watching, env=psql_environment(found), stdin=subprocess.PIPE, stdout=looks, text=True)
        )
        running = start_workers(workers)
        begun = time.time()
        watching.stdin.write(f"{LOOKS} \\watch {every}\n")
        watching.stdin.flush()
        half = jobs // 2
        producers = [start("produce", "traffic", rate / 2, half, first, stdout=subprocess.DEVNULL) for first in (1, 1 + half)]

        events = []
        for seconds, act in acts:
            time.sleep(max(0, begun + seconds - time.time()))
            events.append((time.time() - begun, act))
            if act == "start":
                running += start_workers(workers - len(running))
            else:
                for _ in range({"kill one": 1, "kill all": workers}[act]):
                    running[0].kill()
                    running.pop(0).wait()
        if any(producer.wait() != 0 for producer in producers):
            sys.exit("FAILED: a producer")
        produced = time.time() - begun
        while psql(found, "SELECT count(*) FROM txhooks_job", "traffic") != "0" and time.time() - begun < produced + 120:
            time.sleep(0.2)
        drained = time.time() - begun - produced
        for worker in running:
            worker.terminate()
            if worker.wait() != 0:
                sys.exit("FAILED: a worker")

        booked = list(map(int, psql(found, "SELECT number FROM booked", "traffic").split()))
        written = array("Q", (folder / "written").read_bytes())
        samples = dict(zip(LOOKED, map(list, zip(*numbers_in(folder / "looks")))))
        samples["seconds"] = [at - begun for at in samples["seconds"]]
        return {
            "added": 2 * half,
            "rate": 2 * half / produced,
            "produced": produced,
            "drained": drained,
            "left": int(psql(found, "SELECT count(*) FROM txhooks_job", "traffic")),
            "lost": len(set(range(1, 2 * half + 1)) - set(booked) - set(written)),
            "booked twice": len(booked) - len(set(booked)),
            "written again": len(written) - len(set(written)),
            "events": events,
            "samples": samples,
            "claims": [[at - begun, claim] for at, claim in numbers_in(folder / "claims")],
        }


def nothing_lost(found):
    return [
        row("... lost", found["lost"], 0),
        row("... booked twice", found["booked twice"], 0),
        row("... left in the table", found["left"], 0),
    ]


def backlog(bench):
    progress("workers are killed and come back: 60 seconds, and until all is done ...")
    acts = [(8, "kill one"), (10, "start"), (18, "kill all"), (28, "start"), (40, "kill one"), (42, "start"),
            (46, "kill all"), (52, "start")]
    found = traffic(bench, rate=500, jobs=30000, workers=3, every=0.1, acts=acts)
    return found, [
        row("jobs added while workers are killed", found["added"]),
        *nothing_lost(found),
        row("... written again, because their worker was killed", found["written again"]),
        row("the highest backlog", max(found["samples"]["backlog"])),
        row("seconds until all was done, behind the last job", found["drained"]),
    ]


def day(bench, minutes):
    progress(f"a million jobs in {minutes:g} minutes ...")
    found = traffic(bench, rate=1e6 / (60 * minutes), jobs=10**6, workers=2, every=max(1, minutes / 6))
    samples, claims = found["samples"], [claim for seconds, claim in found["claims"] if seconds < found["produced"]]
    tenth = len(claims) // 10
    return {**found, "minutes": minutes}, [
        row(f"a million jobs in {minutes:g} minutes: a second", found["rate"]),
        *nothing_lost(found),
        row("the table at its largest, MB", max(samples["table"]) / 1e6),
        row("its indexes, MB", max(samples["indexes"]) / 1e6),
        row("dead rows at most", max(samples["dead"])),
        row("a claim in the first tenth of the time, µs", median(claims[:tenth])),
        row("... in the last tenth, over that", median(claims[-tenth:]) / median(claims[:tenth]), unit=" x"),
    ]


def compile_time(bench):
    progress("counting the instructions of the compiler ...")
    headers = {
        "": "nothing",
        "#include <txhooks/txhooks.hpp>": "the core",
        "#include <txhooks/outbox.hpp>": "the outbox",
        "#include <txhooks/outbox/sqlite3.hpp>": "the store of SQLite",
    }
    cost = {name: compiler_instructions("g++", text) for text, name in headers.items()}
    core = cost["the core"] - cost["nothing"]
    block = count_instructions(bench.build, ("outbox/with", "outbox/without"))
    more = block["outbox/with"] - block["outbox/without"]
    return {"compiler": cost, "block": block}, [
        row("#include <txhooks/outbox.hpp> over the core: instructions of g++", (cost["the outbox"] - cost["nothing"]) / core, 2.5, unit=" x"),
        row("#include <txhooks/outbox/sqlite3.hpp> over the core", (cost["the store of SQLite"] - cost["nothing"]) / core, unit=" x"),
        row("a block without jobs on a connection that has an Outbox: instructions more", more, 0),
    ]


TOPICS = {"price": price, "drain": drain, "claims": claims, "wake_up": wake_up, "backlog": backlog, "compile": compile_time}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("topics", nargs="*", help=", ".join(TOPICS))
    parser.add_argument("--day", type=float, metavar="minutes", help="only a million jobs in so long")
    arguments = parser.parse_args()
    if not TOPICS.keys() >= set(arguments.topics):
        parser.error(f"the topics are {', '.join(TOPICS)}")
    bench = Bench(arguments.build.resolve())
    topics = {name: TOPICS[name] for name in arguments.topics or TOPICS}
    if arguments.day:
        topics = {"day": lambda bench: day(bench, arguments.day)}

    results = bench.folder / "jobs.json"
    measured = json.loads(results.read_text()) if results.exists() else {}
    missed = 0
    for name, measure in topics.items():
        measured[name], rows = measure(bench)
        results.write_text(json.dumps(measured, indent=1))
        text = markdown([["figure", "goal", "value", "verdict"], *rows]) + "\n"
        write_page(f"jobs: {name}", text)
        print(text)
        missed += sum(verdict == "MISSED" for *_, verdict in rows)
    print(f"{missed} figures miss their goal" if missed else "every figure reaches its goal")


if __name__ == "__main__":
    main()
