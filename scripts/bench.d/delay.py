"""A line with a round trip: delay.py LISTEN_PORT TARGET_PORT SECONDS, both ports of 127.0.0.1.

Each byte is half the round trip under way, in either direction; nothing limits how many are, and connections do not wait for
each other. A connection is taken at once by the kernel, so the round trip that its handshake would have cost is added to the
first bytes sent on it: they leave no earlier than one round trip after the connection was made.

This needs no right and works everywhere. What it does not show is TCP's slow start.
"""

import asyncio
import gc
import sys


class Side(asyncio.Protocol):
    """One end of a connection: what comes in is written to the other end, later."""

    def __init__(self, loop, half, other=None):
        self.loop, self.half, self.other = loop, half, other
        self.last = 0.0
        self.transport = None
        self.early = []

    def connection_made(self, transport):
        self.transport = transport
        early, self.early = self.early, []
        for call in early:
            call()

    def send(self, what):
        """Does `what` with the transport, now or once there is one."""
        if self.transport is None:
            self.early.append(what)
        elif not self.transport.is_closing():
            what()

    def later(self, what):
        # Strictly after what came before: the loop keeps no order among equal times.
        self.last = max(self.loop.time() + self.half, self.last + 1e-7)
        self.loop.call_at(self.last, self.other.send, what)

    def data_received(self, data):
        self.later(lambda: self.other.transport.write(data))

    def eof_received(self):
        self.later(lambda: self.other.transport.write_eof())
        return True

    def connection_lost(self, _):
        if self.other is not None:
            self.later(lambda: self.other.transport.close())


async def main():
    listen, target, round_trip = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    loop = asyncio.get_running_loop()

    def accepted():
        client = Side(loop, round_trip / 2)
        server = Side(loop, round_trip / 2, client)
        client.other = server
        client.last = loop.time() + round_trip + round_trip / 2
        task = loop.create_task(loop.create_connection(lambda: server, "127.0.0.1", target))
        task.add_done_callback(lambda task: task.exception() and client.transport.close())
        return client

    gc.freeze()
    async with await loop.create_server(accepted, "127.0.0.1", listen, backlog=512) as door:
        await door.serve_forever()


asyncio.run(main())
