"""What the kernel says about processes."""

import errno
import os
import re
import socket
import struct
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")


def stat(pid):
    """The fields of /proc/PID/stat behind the name, or None.

    [0] state, [1] parent, [3] session, [11] user and [12] system time
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def process_state(pid):
    """One letter, R S D T Z ..., or None."""
    fields = stat(pid)
    return fields[0].decode() if fields else None


def is_alive(pid):
    return process_state(pid) not in (None, "Z", "X")


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid, with_dead=False):
    """The living children of a process; `with_dead`: also those that it has not waited for yet."""
    found = []
    for child in all_pids():
        fields = stat(child)
        if fields and int(fields[1]) == pid and (with_dead or fields[0] not in (b"Z", b"X")):
            found.append(child)
    return sorted(found)


def runs(pid, program):
    """Is this the file that the process executes?"""
    try:
        return os.path.samefile(f"/proc/{pid}/exe", program)
    except OSError:
        return False


def of_session(session, tag):
    """Living processes that are in the session or carry the tag in their environment."""
    found = []
    for pid in all_pids():
        fields = stat(pid)
        if not fields or fields[0] in (b"Z", b"X"):
            continue
        if int(fields[3]) == session:
            found.append(pid)
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if tag.encode() in f.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    fields = stat(pid)
    assert fields, f"process {pid} is gone"
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_files(pid):
    """The shared segments that the process has open: {inode}."""
    try:
        return {os.stat(f"/proc/{pid}/fd/{number}").st_ino for number, target in descriptors(pid).items()
                if target.startswith("/memfd:crier")}
    except OSError:  # gone, or not ours
        return set()


def descriptors(pid):
    """What each descriptor of the process is: {number: target}."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return found


def open_descriptors(pids):
    return sum(len(descriptors(pid)) for pid in pids)


def status_flags(pid, descriptor):
    """The O_ flags of the open file description behind a descriptor of another process."""
    with open(f"/proc/{pid}/fdinfo/{descriptor}") as f:
        return int(re.search(r"flags:\s*([0-7]+)", f.read()).group(1), 8)


def memory(pids):
    """Bytes of the processes together: {"pss": all, "private": without the shared segment and files}."""
    total = {"pss": 0, "private": 0}
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            text = f.read()
        total["pss"] += int(re.search(r"^Pss:\s*(\d+)", text, re.M).group(1)) * 1024
        total["private"] += int(re.search(r"^Pss_Anon:\s*(\d+)", text, re.M).group(1)) * 1024
    return total


def resident(pids):
    """Resident bytes of each process, shared pages included: {pid: bytes}."""
    found = {}
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            found[pid] = int(re.search(r"^VmRSS:\s*(\d+)", f.read(), re.M).group(1)) * 1024
    return found


def tcp_memory(port):
    """Bytes that the TCP sockets with this port, at either end, hold in the kernel: data in both directions, and what the
    kernel has set aside for more."""
    shown = subprocess.run(["ss", "-tmnH", "state", "connected", f"( sport = :{port} or dport = :{port} )"],
                           capture_output=True, text=True, check=True).stdout
    sockets = re.findall(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+)", shown)
    assert sockets, f"ss does not show the memory of the sockets: {shown[:200]!r}"
    return sum(int(number) for numbers in sockets for number in numbers)


def socket_inode(local, remote):
    """The inode of the connected TCP socket on this machine with these two (host, port), or None.

    sock_diag(7) finds it in no time; the table in /proc is slow to read, but there without the tcp_diag module, too.
    """
    SOCK_DIAG, BY_FAMILY, REQUEST, ANY_STATE, NO_COOKIE, LISTEN = 4, 20, 1, 0xffffffff, 0xffffffff, 10
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, ANY_STATE) + struct.pack(">HH", local[1], remote[1])
    body += b"".join(socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (local, remote))
    body += struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(body), BY_FAMILY, REQUEST, 0, 0) + body)
        answer = kernel.recv(65536)
    kind, = struct.unpack_from("=H", answer, 4)
    if kind != BY_FAMILY:
        error, = struct.unpack_from("=i", answer, 16)
        assert error == -errno.ENOENT, os.strerror(-error)
        return socket_inode_in_table(local[1], remote[1])
    return struct.unpack_from("=I", answer, 84)[0] if answer[17] != LISTEN else None


def socket_inode_in_table(local_port, remote_port):
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as f:
                rows = f.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            fields = row.split()
            ports = [int(address.rpartition(":")[2], 16) for address in fields[1:3]]
            if ports == [local_port, remote_port] and fields[9] != "0":
                return int(fields[9])
    return None
