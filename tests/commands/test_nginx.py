"""The nginx example of README.md, as written, with Debian's nginx and its own nginx.conf; and that each line is needed.

Everything runs in namespaces of its own: port 443 is free, and what is written below /etc, /run and /var/log goes to
file systems that only this test sees.
"""

import os
import re
import subprocess
import sys

import pytest
from markdown import source

from harness import CRIER, PATIENCE, REPOSITORY, plain_environment
from clone import Machine, Running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start nginx as www-data"),
    pytest.mark.skipif(not os.path.exists("/usr/sbin/nginx"), reason="nginx is not installed"),
]

HOST = "live.example.org"
CERTIFICATE, KEY = f"/etc/ssl/certs/{HOST}.pem", f"/etc/ssl/private/{HOST}.key"
with open(os.path.join(REPOSITORY, "README.md")) as text:
    EXAMPLE = source(text.read(), "nginx")

MACHINE = f"""
for folder in /run /etc/nginx/conf.d /etc/ssl/certs /etc/ssl/private /var/log/nginx; do mount -t tmpfs tmpfs $folder; done
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST} \
    -keyout {KEY} -out {CERTIFICATE} 2>&1
"""

CLIENT = f"""
import asyncio, socket, ssl, websockets

async def main():
    context = ssl.create_default_context(cafile={CERTIFICATE!r})
    plain = socket.create_connection(("127.0.0.1", 443))
    try:
        async with websockets.connect("wss://{HOST}/live/", sock=plain, ssl=context,
                                      server_hostname="{HOST}", origin="https://{HOST}") as client:
            print(await client.recv())
            await client.send("hello")
            print(await client.recv())
    except websockets.exceptions.InvalidHandshake as error:
        print(error.response.status_code if hasattr(error, "response") else error.status_code)

asyncio.run(main())
"""


class Site:
    """nginx with an example, and the crier that its first line starts."""

    def __init__(self, example):
        command = re.match(r"# crier (.*)\n", example)[1].split()
        self.machine = Machine()
        self.running = []
        try:
            self.run("sh", "-e", "-c", MACHINE)
            self.run("tee", "/etc/nginx/conf.d/live.conf", input=example)
            self.start([CRIER, *command], "listening on unix:/run/crier.sock")
            self.run("/usr/sbin/nginx")
        except BaseException:
            self.close()
            raise

    def run(self, *command, status=0, **how):
        done = subprocess.run([*self.machine.enter, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=PATIENCE * 4, env=plain_environment(), **how)
        assert status in (None, done.returncode), f"{command}: {done.stdout}"
        return done.stdout

    def start(self, command, line):
        self.running.append(Running([*self.machine.enter, "--", *command], "/", plain_environment()))
        self.running[-1].expect(lambda printed: line in printed, line)

    def page(self, path="/live/"):
        """(status, what the answer says)"""
        said = self.run("curl", "-sS", "--cacert", CERTIFICATE, "--resolve", f"{HOST}:443:127.0.0.1", "-i",
                        "-H", "Accept: text/html", f"https://{HOST}{path}")
        return int(said.split()[1]), said

    def talk(self):
        """What a client of a page of that host prints: its messages, or the status of a refusal."""
        return self.run(sys.executable, "-c", CLIENT).splitlines()

    def close(self):
        for one in self.running:
            one.drop()
        self.machine.close()


@pytest.fixture
def site():
    sites = []

    def build(example):
        sites.append(Site(example))
        return sites[-1]

    yield build
    for one in sites:
        one.close()


def test_the_example_serves_a_page_and_its_websocket_over_tls_below_its_path(site):
    one = site(EXAMPLE)
    status, said = one.page()
    assert status == 200 and "content-type: text/html" in said.lower(), said
    status, said = one.page("/live")
    assert status == 301 and f"location: https://{HOST}/live/\n" in said.lower(), said
    welcome, echo = one.talk()
    assert welcome.startswith("Welcome, unix:") and echo == "hello"


@pytest.mark.parametrize("line, instead, refusal", [
    (",mode=660,group=www-data", "", "502"),
    ("group=www-data", "group=root", "502"),
    ("proxy_http_version 1.1;", "", "426"),
    ("proxy_set_header Host $http_host;", "", "403"),
    ("proxy_set_header Upgrade $http_upgrade;", "", "426"),
    ("proxy_set_header Connection upgrade;", "", "426"),
])
def test_without_a_line_of_the_example_the_websocket_is_refused(site, line, instead, refusal):
    assert EXAMPLE.count(line) == 1, f"the example has no {line!r}"
    assert site(EXAMPLE.replace(line, instead)).talk() == [refusal]


def test_without_the_slash_behind_the_socket_there_is_no_page(site):
    assert EXAMPLE.count("crier.sock:/;") == 1
    status, _ = site(EXAMPLE.replace("crier.sock:/;", "crier.sock;")).page()
    assert status != 200
