"""Sits on a connection and writes down every byte."""

import socket
import threading
from collections import defaultdict

_PIECE = 1 << 16


class Tap:
    """Forwards loopback connections to ``target``; ``sent`` is what clients said, ``received`` what they were told."""

    def __init__(self, target: int) -> None:
        self._target, self._listener = target, socket.create_server(("127.0.0.1", 0))
        self._sent, self._received = defaultdict[int, bytearray](bytearray), defaultdict[int, bytearray](bytearray)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def sent(self) -> bytes:
        return b"".join(self._sent.values())

    @property
    def received(self) -> bytes:
        return b"".join(self._received.values())

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            number += 1
            for a, b, into in ((client, server, self._sent[number]), (server, client, self._received[number])):
                threading.Thread(target=_copy, args=(a, b, into), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, into: bytearray) -> None:
    try:
        while piece := source.recv(_PIECE):
            into += piece
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
