"""python3-websockets: what a client sends goes to all, with the library's own broadcast()."""

import asyncio
import signal
import sys

import websockets

clients = set()


async def serve(client):
    clients.add(client)
    try:
        async for message in client:
            websockets.broadcast(clients, message)
    except websockets.ConnectionClosedError:
        pass
    finally:
        clients.remove(client)


async def main():
    told = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set_result, None)
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), compression=None):
        await told


asyncio.run(main())
