"""The servers that are compared: what each is, how it is built and started. All listen on 127.0.0.1, port 9000, have
one process or thread that serves clients, and pass on what one client sends to all of them."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 9000
URL = f"ws://127.0.0.1:{PORT}/"


@dataclass
class Server:
    name: str
    command: list
    version: str
    note: str  # what it does that the others do not, or otherwise
    environment: dict = field(default_factory=dict)
    mqtt: bool = False  # what it passes on is MQTT


def said(*command, **how):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **how).stdout.strip()


def debian(package):
    """Its version; what Debian has changed about it is no part of that."""
    return said("dpkg-query", "-W", "-f", "${Version}", package).split(":")[-1].partition("-")[0].partition("+")[0]


def here(name):
    return os.path.join(HERE, name)


def build_ws(folder):
    """npm's clients install below a package.json: a copy of ours, out of the tree."""
    installed = os.path.join(folder, "node_modules/ws/package.json")
    with open(here("package.json")) as f:
        wanted = json.load(f)["dependencies"]["ws"]
    os.makedirs(folder, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "ws_broadcast.js"):
        shutil.copy(here(name), folder)
    if os.path.exists(installed):
        with open(installed) as f:
            if json.load(f)["version"] == wanted:
                return wanted
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return wanted


def build_lws(folder):
    program = os.path.join(folder, "lws_broadcast")
    subprocess.run(["gcc", "-O2", "-o", program, here("lws_broadcast.c"), "-lwebsockets"], check=True)
    return program


def build_gorilla(folder):
    """From Debian's sources, where Go looked for packages before it had modules."""
    program = os.path.join(folder, "gorilla_broadcast")
    subprocess.run(["go", "build", "-o", program, here("gorilla_broadcast.go")], check=True,
                   env={**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode",
                        "GOCACHE": os.path.join(folder, "go-cache")})
    return program


def build_all(build):
    """Everything that is to be started; `build` is where crier was built."""
    folder = os.path.join(build, "peers")
    os.makedirs(os.path.join(folder, "nginx"), exist_ok=True)
    port = str(PORT)
    ws = build_ws(os.path.join(folder, "ws"))
    return [
        Server("crier", [os.path.join(build, "crier"), "--quiet", "--listen", f"127.0.0.1:{port}", "--workers", "1",
                         "--no-welcome", "--on-message", "broadcast"],
               said(os.path.join(build, "crier"), "--version").split()[-1],
               "a master beside its worker, and both are counted; the newest messages are in a ring of 16 MiB that all "
               "processes share; a client whose socket has taken nothing for a second is closed once it holds up three quarters "
               "of that"),
        Server("nchan", ["/usr/sbin/nginx", "-p", os.path.join(folder, "nginx"), "-c", here("nginx.conf")],
               f"{debian('libnginx-mod-nchan')} in nginx {debian('nginx')}",
               "a channel keeps its newest 1,000 messages, at most 10 s old, for clients that come back; a master beside its "
               "worker, and both are counted"),
        Server("libwebsockets", [build_lws(folder), port], debian("libwebsockets-dev"),
               "a server of our own with a ring of 4,096 messages; a client is written to when the library says that its "
               "socket takes something, until it takes no more"),
        Server("ws", ["node", os.path.join(folder, "ws/ws_broadcast.js"), port],
               f"{ws} on Node.js {said('node', '--version').lstrip('v')}",
               "a loop over all clients, as its documentation has it; JavaScript on one thread, and the engine's own threads "
               "beside it"),
        Server("gorilla", [build_gorilla(folder), port],
               f"{debian('golang-github-gorilla-websocket-dev')} with Go {said('go', 'version').split()[2].removeprefix('go')}",
               "two goroutines and a queue of 256 messages for each client, as its chat example has it, and each message is "
               "framed once (`PreparedMessage`); `GOMAXPROCS=1`", {"GOMAXPROCS": "1"}),
        Server("websockets", ["/usr/bin/python3", here("websockets_broadcast.py"), port],
               f"{debian('python3-websockets')} on Python {said('/usr/bin/python3', '--version').split()[-1]}",
               "asyncio with the library's own `broadcast()`"),
        Server("mosquitto", ["/usr/sbin/mosquitto", "-c", here("mosquitto.conf")], debian("mosquitto"),
               "MQTT in binary messages: a client connects to the broker and subscribes to a topic as well, and each message "
               "has a head more; QoS 0", mqtt=True),
    ]
