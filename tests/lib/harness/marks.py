"""Marks that several test files use."""

import socket

import pytest


def ipv6_works():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


each_worker_count = pytest.mark.parametrize("workers", [1, 2, 4])
needs_ipv6 = pytest.mark.skipif(not ipv6_works(), reason="no IPv6 on this machine")
