# SPDX-License-Identifier: MIT
#
# The worker of ../celery.cpp: an application of Celery like any other. The folder that it is given has the socket of
# Redis, for the tasks and the answers, and the database of the service.

import sqlite3
import sys

from celery import Celery

folder = sys.argv[1]
redis = f"redis+socket://{folder}/redis"
app = Celery(broker=redis, backend=f"{redis}?virtual_host=1")
db = sqlite3.connect(f"{folder}/app.db")


@app.task(name="welcome")
def welcome(user):
    """Returns the mail, or nothing: there is no such user."""
    row = db.execute("SELECT name FROM user WHERE id = ?", (user,)).fetchone()
    return row and f"Welcome, {row[0]}"


app.worker_main(["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat"])
