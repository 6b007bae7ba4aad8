"""What the end-to-end tests share: the real server as a process, clients that send exact bytes, and measurements."""

from .attackers import Attackers
from .deflate_client import DeflateClient, deflate, inflate
from .durations import Durations
from .jobs import Job, at_once
from .marks import each_worker_count, needs_ipv6
from .procs import (all_pids, cpu_seconds, descriptors, is_alive, memory, memory_files,
                    open_descriptors, process_state, resident, tcp_memory)
from .raw_client import (BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Closed, Disconnected, Frame, RawClient,
                         encode_frame, server_frame)
from .segment import BUILD, CRIER_RING
from .server import CRIER, PROBE, REPOSITORY, Server, plain_environment, run_crier
from .stalls import frozen, stopped
from .swarm_client import Swarm, transcript_hash
from .signal_table import REALTIME, all_signals, masks, signals_that, table_items
from .waiting import PATIENCE, SANITIZED, Deadline, Late, Pace, in_time, wait_for_reader, wait_until

__all__ = [
    "Attackers", "BINARY", "BUILD", "CLOSE", "CONTINUATION", "CRIER", "CRIER_RING", "Closed", "Deadline", "DeflateClient",
    "Disconnected", "Durations", "Frame", "Job", "Late", "PATIENCE", "PING", "PONG", "PROBE", "Pace", "REALTIME",
    "REPOSITORY", "RawClient", "SANITIZED", "Server", "Swarm", "TEXT", "all_pids", "all_signals", "at_once", "cpu_seconds",
    "deflate", "descriptors", "each_worker_count", "encode_frame", "frozen", "in_time", "inflate", "is_alive", "masks",
    "memory", "memory_files", "needs_ipv6", "open_descriptors", "plain_environment", "process_state", "resident",
    "run_crier", "server_frame", "signals_that", "stopped", "table_items", "tcp_memory", "transcript_hash",
    "wait_for_reader", "wait_until",
]
