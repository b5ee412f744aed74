#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures transactions of servers: servers.py <build directory>. Prints the table, and writes it into README.md."""

import sys
from pathlib import Path

from measure import counted, markdown, number, progress, times, write_page

COUNTED = 500
RUNS = 5
REPETITIONS = 30

SUBJECTS = {
    "postgres": "PostgreSQL, `PQexec`",
    "postgres/event": "... event procedure (default)",
    "postgres/set_local": "... `postgres::SetLocal`",
    "postgres/sentinel": "... `postgres::Sentinel`",
    "postgres/resolve": "... default, with `.resolve`",
    "pqxx": "PostgreSQL, `pqxx::work`",
    "pqxx/sentinel": "... `pqxx::connection`",
    "mariadb": "MariaDB, `mysql_real_query`",
    "mariadb/compound": "... compounds (default)",
    "mariadb/plain": "... `mariadb::Plain`",
    "mariadb/resolve": "... default, with `.resolve`",
}


def main():
    build = Path(sys.argv[1]).resolve()
    progress("counting instructions of the clients ...")


    # One at a time: a client that waits for its server executes more.
    def least(subject, transactions):
        return min(counted(build / "instructions_servers", f"{subject}/empty", transactions) for _ in range(RUNS))

    instructions = {subject: (least(subject, 2 * COUNTED) - least(subject, COUNTED)) / COUNTED for subject in SUBJECTS}
    progress("measuring times ...")
    nanoseconds = times(build, "time_servers", REPETITIONS, 0.02, clock="real_time")

    rows = [["", "instructions", "µs", "µs, one INSERT"]]
    for subject, text in SUBJECTS.items():
        base = subject.split("/")[0]

        def cell(value, by_hand):
            over = "" if subject == base else f" ({value / by_hand - 1:+.1%})"
            return number(value) + over

        clocks = [
            cell(nanoseconds[f"{subject}/{work}/real_time"] / 1000, nanoseconds[f"{base}/{work}/real_time"] / 1000)
            for work in ("empty", "insert")
        ]
        rows.append([text, cell(round(instructions[subject]), round(instructions[base]))] + clocks)
    text = markdown(rows) + "\n"
    write_page("servers", text)
    print(text)


if __name__ == "__main__":
    main()
