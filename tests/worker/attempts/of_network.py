"""Sockets and ports."""

import os
import socket

from ground import Untried, facts

IPPROTO_MPTCP = 262
MSG_FASTOPEN = 0x20000000


def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def connect(address):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address)


def with_listener(connect):
    """Something listens on a port that is not the proxy's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect(listener.getsockname())


def mptcp(to):
    try:
        peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        # A kernel without it says no other than we do: by the name of the protocol too.
        if not os.path.exists("/proc/sys/net/mptcp/enabled"):
            raise Untried from error
        raise
    with peer:
        peer.connect(to)


def fast_open(to):
    with socket.socket() as peer:
        peer.sendto(b"x", MSG_FASTOPEN, to)


def fast_open_by_message(to):
    with socket.socket() as peer:
        peer.sendmsg([b"x"], [], MSG_FASTOPEN, to)


def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", ("127.0.0.1", 9))


def terminal():
    if "terminal" not in facts:
        raise Untried
    os.close(os.open(facts["terminal"], os.O_RDWR | os.O_NOCTTY))


ATTEMPTS = {
    "other-ports": [lambda: with_listener(lambda to: socket.create_connection(to).close()),
                    lambda: with_listener(mptcp), lambda: with_listener(fast_open),
                    lambda: with_listener(fast_open_by_message), datagram],
    "terminal": [terminal],
    "raw-packets": [packets],
    "abstract-socket": [lambda: connect("\0" + facts["abstract"])],
    "path-socket": [lambda: connect(facts["socket"])],
}
