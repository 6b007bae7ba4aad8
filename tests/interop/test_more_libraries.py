"""The same with libraries that have other habits, and that `make test` does not ask for."""

from driven import Aiohttp, Java, Libsoup, Mojolicious, Qt, Tornado
from scenarios import Scenarios


class TestMoreLibraries(Scenarios):
    libraries = (Aiohttp, Tornado, Libsoup, Qt, Mojolicious, Java)
