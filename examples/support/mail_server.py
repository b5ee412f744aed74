# SPDX-License-Identifier: MIT
#
# The mail server of ../mail.cpp. In the folder that it runs in it listens on the socket `smtp`, and keeps what it is given
# in the Maildir `mails`. It does not know who lives at nowhere.example.

import signal

from aiosmtpd.controller import UnixSocketController
from aiosmtpd.handlers import Mailbox


class Server(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.endswith("@nowhere.example"):
            return "550 nobody lives there"
        envelope.rcpt_tos.append(address)
        return "250 OK"


UnixSocketController(Server("mails"), "smtp").start()
signal.pause()
