# SPDX-License-Identifier: MIT
#
# The mail server of ../mail.cpp. In the folder that it is given it listens on the socket `smtp`, keeps what it takes in
# the Maildir `mails`, and makes the file `ready`.

import pathlib
import signal
import sys

from aiosmtpd.controller import UnixSocketController
from aiosmtpd.handlers import Mailbox


class Server(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.endswith("@nowhere.example"):
            return "550 there is no such place"
        envelope.rcpt_tos.append(address)
        return "250 OK"


folder = pathlib.Path(sys.argv[1])
UnixSocketController(Server(folder / "mails"), folder / "smtp").start()
(folder / "ready").touch()
signal.pause()
