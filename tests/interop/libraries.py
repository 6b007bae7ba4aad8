"""Clients that others wrote, each behind the same few words, so that one test can be played with all of them.

    open:      in the constructor: (url, deflate, protocols=names)
    extension: what the library says was agreed, "" or "permessage-deflate"
    agreed:    the subprotocol, "" for none
    cannot:    of the class: what the library cannot do, driven.py has the words
    send:      str or bytes; a list of them is sent as one message in fragments
    recv:      the next message
    ping:      sends a ping and waits for its pong
    close:     sends a close and waits for the answer: the code and the reason that the library was told
    recv_close: the same when the server closes
"""

import asyncio
import socket
from urllib.parse import urlsplit

import websockets
import wsproto
import wsproto.events
import wsproto.extensions

from harness import PATIENCE


class Websockets:
    """Debian's python3-websockets."""
    cannot = ()

    def __init__(self, url, deflate, protocols=()):
        self.loop = asyncio.new_event_loop()
        self.client = self.run(self.connect(url, "deflate" if deflate else None, protocols))
        self.agreed = self.client.subprotocol or ""
        self.extension = ", ".join(extension.name for extension in self.client.extensions)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.transport.abort()
        self.run(self.client.wait_closed())
        self.loop.close()

    @staticmethod
    async def connect(url, compression, protocols):
        return await websockets.connect(url, compression=compression, subprotocols=protocols or None, open_timeout=PATIENCE,
                                        close_timeout=PATIENCE, max_size=None)

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 2 * PATIENCE))

    def send(self, message):
        self.run(self.client.send(message))

    def recv(self):
        return self.run(self.client.recv())

    def ping(self, payload):
        async def round_trip():
            await (await self.client.ping(payload))
        self.run(round_trip())

    def close(self, code, reason):
        self.run(self.client.close(code, reason))
        return self.client.close_code, self.client.close_reason

    def recv_close(self):
        try:
            message = self.recv()
        except websockets.ConnectionClosed as end:
            return end.rcvd.code, end.rcvd.reason
        raise AssertionError(f"a message instead of a close: {message[:80]!r}")


class Wsproto:
    """Debian's python3-wsproto, on a socket of ours: it does no input or output itself."""
    cannot = ()

    def __init__(self, url, deflate, protocols=()):
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=2 * PATIENCE)
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.queue = []
        offers = [wsproto.extensions.PerMessageDeflate()] if deflate else []
        self.write(wsproto.events.Request(host=parts.netloc, target=f"{parts.path}?{parts.query}",
                                              extensions=offers, subprotocols=list(protocols)))
        accepted = self.next_event()
        assert isinstance(accepted, wsproto.events.AcceptConnection), accepted
        self.extension = ", ".join(extension.name for extension in accepted.extensions)
        self.agreed = accepted.subprotocol or ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def write(self, event):
        self.socket.sendall(self.protocol.send(event))

    def next_event(self):
        while not self.queue:
            self.protocol.receive_data(self.socket.recv(65536) or None)
            for event in self.protocol.events():
                if isinstance(event, wsproto.events.Ping):
                    self.write(event.response())
                else:
                    self.queue.append(event)
        return self.queue.pop(0)

    def send(self, message):
        parts = message if isinstance(message, list) else [message]
        for number, part in enumerate(parts):
            self.write(wsproto.events.Message(data=part, message_finished=number == len(parts) - 1))

    def recv(self):
        parts = [self.next_event()]
        while not parts[-1].message_finished:
            parts.append(self.next_event())
        data = [part.data for part in parts]
        return "".join(data) if isinstance(data[0], str) else b"".join(data)

    def ping(self, payload):
        self.write(wsproto.events.Ping(payload=payload))
        assert self.next_event() == wsproto.events.Pong(payload=payload)

    def close(self, code, reason):
        self.write(wsproto.events.CloseConnection(code=code, reason=reason))
        told = self.told()
        self.socket.shutdown(socket.SHUT_WR)
        return told

    def recv_close(self):
        told = self.told()
        self.socket.sendall(self.protocol.send(wsproto.events.CloseConnection(code=told[0])))
        return told

    def told(self):
        event = self.next_event()
        assert isinstance(event, wsproto.events.CloseConnection), event
        return event.code, event.reason or ""
