#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Times of Django's on_commit on SQLite in memory: prints {"<kind>/django/<count>": nanoseconds} as JSON."""

import json
import time

import django
from django.conf import settings
from django.db import connection, transaction

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()


def hook():
    pass


class Undo(Exception):
    pass


def empty():
    with transaction.atomic():
        pass


def hooks(count):
    with transaction.atomic():
        for _ in range(count):
            transaction.on_commit(hook)


def depth(count):
    with transaction.atomic():
        transaction.on_commit(hook)
        if count > 1:
            depth(count - 1)


def savepoints(count):
    with transaction.atomic():
        for i in range(count):
            try:
                with transaction.atomic():
                    transaction.on_commit(hook)
                    if i % 2:
                        raise Undo
            except Undo:
                pass


def shortest(work, *arguments):
    best = float("inf")
    for _ in range(7):
        before = time.process_time_ns()
        work(*arguments)
        best = min(best, time.process_time_ns() - before)
    return best


connection.ensure_connection()
figures = {"empty/django/1": shortest(empty)}
for work, counts in ((hooks, (1, 10, 100, 1000, 10000)), (depth, (1, 10, 100)), (savepoints, (10, 100, 1000, 4000))):
    for count in counts:
        figures[f"{work.__name__}/django/{count}"] = shortest(work, count)
print(json.dumps(figures))
