"""A client made with aiohttp, Tornado, libsoup or Qt, driven by a test: README.md beside it has the orders and events.

    python_client.py aiohttp|tornado|libsoup|qt URL deflate=0|1 [protocols=NAME,NAME]
"""

import asyncio
import os
import sys


def say(event, *words):
    sys.stdout.write(" ".join([event, *map(str, words)]) + "\n")
    sys.stdout.flush()


def hexed(content):
    return (content.encode() if isinstance(content, str) else bytes(content or b"")).hex()


def say_message(content):
    say("message", "text" if isinstance(content, str) else "binary", hexed(content))


class Orders:
    """The orders of standard input, from a loop that calls read() when it can be read."""

    def __init__(self):
        self.rest = b""

    def read(self):
        """Lists of words; the process ends with its orders."""
        data = os.read(0, 1 << 20)
        if not data:
            os._exit(0)
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [line.decode().split(" ") for line in lines]


def contents(words):
    """Of `text|binary PART...`."""
    parts = [bytes.fromhex(word) for word in words[1:]]
    return [part.decode() for part in parts] if words[0] == "text" else parts


async def obey_each(obey):
    """Obeys the orders one after the other, for ever."""
    orders, queue = Orders(), asyncio.Queue()
    asyncio.get_running_loop().add_reader(0, lambda: [queue.put_nowait(order) for order in orders.read()])
    while True:
        order = await queue.get()
        try:
            await obey(*order)
        except (TypeError, AttributeError) as error:
            say("unable", hexed(str(error)))
        except Exception as error:
            say("failed", hexed(f"{type(error).__name__}: {error}"))


def aiohttp_client(url, deflate, protocols):
    import aiohttp

    async def run():
        client = await aiohttp.ClientSession().ws_connect(url, protocols=protocols, compress=15 if deflate else 0,
                                                          max_msg_size=0, autoping=False)
        say("open", hexed("permessage-deflate" if client.compress else ""), hexed(client.protocol))

        async def receive():
            while True:
                message = await client.receive()
                if message.type == aiohttp.WSMsgType.PING:
                    await client.pong(message.data)
                elif message.type == aiohttp.WSMsgType.PONG:
                    say("pong", hexed(message.data))
                elif message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    say_message(message.data)
                else:
                    say("close", client.close_code, hexed(message.extra))
                    return

        async def obey(order, *words):
            if order == "close":
                receiving.cancel()  # close() reads the answer only if no receive() waits
                await asyncio.wait([receiving])
                await client.close(code=int(words[0]), message=bytes.fromhex(words[1]))
                say("close", client.close_code, "")
            elif order == "ping":
                await client.ping(bytes.fromhex(words[0]))
            else:
                parts = contents(words)
                send = client.send_str if words[0] == "text" else client.send_bytes
                for part in parts[:-1]:
                    await send(part, fin=False)
                await send(parts[-1])

        receiving = asyncio.create_task(receive())
        await obey_each(obey)
    asyncio.run(run())


def tornado_client(url, deflate, protocols):
    import tornado.websocket

    async def run():
        client = await tornado.websocket.websocket_connect(
            url, subprotocols=protocols or None, compression_options={} if deflate else None, max_message_size=1 << 30,
            on_message_callback=lambda message: say_message(message) if message is not None else
            say("close", client.close_code, hexed(client.close_reason)))
        client.on_pong = lambda payload: say("pong", hexed(payload))
        say("open", hexed(client.headers.get("Sec-WebSocket-Extensions", "")), hexed(client.selected_subprotocol))

        async def obey(order, *words):
            if order == "close":
                client.close(int(words[0]), bytes.fromhex(words[1]).decode())
            elif order == "ping":
                client.ping(bytes.fromhex(words[0]))
            else:
                parts = contents(words)
                for part in parts[:-1]:
                    await client.write_message(part, binary=words[0] == "binary", fin=False)
                await client.write_message(parts[-1], binary=words[0] == "binary")
        await obey_each(obey)
    asyncio.run(run())


def libsoup_client(url, deflate, protocols):
    import gi
    gi.require_version("Soup", "3.0")
    from gi.repository import GLib, Soup

    loop, orders, session = GLib.MainLoop(), Orders(), Soup.Session()
    kinds = {"text": Soup.WebsocketDataType.TEXT, "binary": Soup.WebsocketDataType.BINARY}
    if deflate:
        session.add_feature_by_type(Soup.WebsocketExtensionManager)

    def obey(client, order, *words):
        if order == "close":
            client.close(int(words[0]), bytes.fromhex(words[1]).decode())
        elif order == "ping":
            client.set_keepalive_interval(1)  # it has no other way, and chooses the payload
        else:
            parts = [GLib.Bytes(bytes.fromhex(word)) for word in words[1:]]
            for part in parts[:-1]:
                client.send_message(kinds[words[0]], part, False)
            client.send_message(kinds[words[0]], parts[-1])

    def obey_all(client):
        for order in orders.read():
            try:
                obey(client, *order)
            except (TypeError, AttributeError) as error:
                say("unable", hexed(str(error)))
        return True

    def on_message(_, kind, data):
        content = data.get_data() or b""
        say_message(content.decode() if kind == Soup.WebsocketDataType.TEXT else content)

    def on_pong(client, data):
        client.set_keepalive_interval(0)
        say("pong", hexed(data.get_data()))

    def opened(session, result):
        try:
            client = session.websocket_connect_finish(result)
        except GLib.Error as error:
            say("failed", hexed(str(error)))
            return
        session.client = client
        client.set_max_incoming_payload_size(0)
        client.connect("message", on_message)
        client.connect("pong", on_pong)
        client.connect("closed", lambda it: say("close", it.get_close_code(), hexed(it.get_close_data())))
        names = ["permessage-deflate" if isinstance(one, Soup.WebsocketExtensionDeflate) else str(one)
                 for one in client.get_extensions()]
        say("open", hexed(", ".join(names)), hexed(client.get_protocol()))
        GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, 0, GLib.IOCondition.IN | GLib.IOCondition.HUP,
                              lambda *_: obey_all(client))

    session.websocket_connect_async(Soup.Message.new("GET", url), None, protocols or None, GLib.PRIORITY_DEFAULT, None, opened)
    loop.run()


def qt_client(url, deflate, protocols):
    from PyQt5.QtCore import QByteArray, QCoreApplication, QSocketNotifier, QUrl
    from PyQt5.QtNetwork import QNetworkRequest
    from PyQt5.QtWebSockets import QWebSocket

    application, orders, client = QCoreApplication(sys.argv[:1]), Orders(), QWebSocket()
    notifier = QSocketNotifier(0, QSocketNotifier.Read)
    request = QNetworkRequest(QUrl(url))
    if protocols:  # it has no way of its own
        request.setRawHeader(b"Sec-WebSocket-Protocol", ", ".join(protocols).encode())
    if deflate:
        request.setRawHeader(b"Sec-WebSocket-Extensions", b"permessage-deflate")

    def obey(order, *words):
        if order == "close":
            client.close(int(words[0]), bytes.fromhex(words[1]).decode())
        elif order == "ping":
            client.ping(bytes.fromhex(words[0]))
        else:
            whole = b"".join(bytes.fromhex(word) for word in words[1:])
            pieces = len(words) - 1
            client.setOutgoingFrameSize(-(-len(whole) // pieces) if pieces > 1 else client.maxOutgoingFrameSize())
            if words[0] == "text":
                client.sendTextMessage(whole.decode())
            else:
                client.sendBinaryMessage(QByteArray(whole))

    def opened():
        say("open", "", "")  # it does not tell
        notifier.activated.connect(lambda *_: [obey(*order) for order in orders.read()])

    client.connected.connect(opened)
    client.textMessageReceived.connect(say_message)
    client.binaryMessageReceived.connect(lambda data: say_message(bytes(data)))
    client.pong.connect(lambda elapsed, payload: say("pong", hexed(payload)))
    client.disconnected.connect(lambda: say("close", client.closeCode(), hexed(client.closeReason())))
    client.error.connect(lambda _: say("failed", hexed(client.errorString())))
    client.open(request)
    application.exec_()


def main():
    name, url, *words = sys.argv[1:]
    options = dict(word.split("=", 1) for word in words)
    protocols = [one for one in options.get("protocols", "").split(",") if one]
    try:
        {"aiohttp": aiohttp_client, "tornado": tornado_client, "libsoup": libsoup_client, "qt": qt_client}[name](
            url, options["deflate"] == "1", protocols)
    except Exception as error:
        say("failed", hexed(f"{type(error).__name__}: {error}"))
        raise


main()
