# SPDX-License-Identifier: MIT
#
# The worker of ../celery.cpp: an application of Celery like any other. The folder that it runs in has the socket of Redis,
# for the tasks and the answers, and the database of the service.

import os
import sqlite3

from celery import Celery

redis = f"redis+socket://{os.getcwd()}/redis"
app = Celery(broker=redis, backend=f"{redis}?virtual_host=1")
db = sqlite3.connect("app.db")


@app.task(name="welcome")
def welcome(user):
    """Returns the mail, or nothing: there is no such user."""
    row = db.execute("SELECT name FROM user WHERE id = ?", (user,)).fetchone()
    return row and f"Welcome, {row[0]}"


app.worker_main(["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat"])
