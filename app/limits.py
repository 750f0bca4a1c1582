"""Limits that keep the service responsive. No user has to set them; tests lower them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a running service.

    Attributes:
        read_deadline: seconds that a read may take on the event loop, on SQLite.
        read_steps: SQLite's steps between two checks of that deadline, about 20 microseconds.
        read_timeout: seconds that a read waits for a worker thread, on PostgreSQL; only behind a
            server that hangs does it take so long.
        waiting_reads: number of reads that may wait for a worker thread; more of them get 503.
        rating_timeout: seconds that a rating waits at least for the preceding commit.
        body_timeout: seconds to wait for the next part of a body. Without a limit, a client that
            stops sending would keep a stopped server from ending.
        head_timeout: seconds from opening a connection, or from the first byte of a later head, to
            a complete head. uvicorn waits forever, and each connection uses a file descriptor.
        file_check_interval: seconds between two checks of the SQLite file if no request arrives.
        connect_timeout: seconds to open a connection to PostgreSQL; an unreachable host never
            answers.
        ping_timeout: seconds that PostgreSQL has to answer a ping of a pooled connection.
        wal_bytes: bytes that SQLite keeps of a -wal that a long reader made grow.
        replica_pause: seconds until reads try replicas again that were unavailable.
    """

    read_deadline: float = 0.003
    read_steps: int = 2000
    read_timeout: float = 5.0
    waiting_reads: int = 100
    rating_timeout: float = 5.0
    body_timeout: float = 5.0
    head_timeout: float = 10.0
    file_check_interval: float = 1.0
    connect_timeout: int = 5
    ping_timeout: float = 2.0
    wal_bytes: int = 64 * 2**20
    replica_pause: float = 5.0
