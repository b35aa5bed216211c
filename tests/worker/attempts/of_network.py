"""Sockets and ports."""

import socket

from ground import facts


def packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def connect(address):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address)


ATTEMPTS = {
    "raw-packets": [packets],
    "abstract-socket": [lambda: connect("\0" + facts["abstract"])],
    "path-socket": [lambda: connect(facts["socket"])],
}
