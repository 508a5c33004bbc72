"""A TCP proxy that cuts: between our initiator and a real array, it goes on until so many bytes have passed one way."""

from __future__ import annotations

import select
import socket
import threading
from types import TracebackType
from typing import Self

BYTES = 65536
TURN_S = 0.02


class Cutter:
    """Listens at `port` and passes on to `target`. `cut_up` and `cut_down` are how many bytes a connection lives from
    now on, towards the array and back; None: for ever. A cut connection is reset; the next ones pass freely."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self._forgotten: set[socket.socket] = set()
        self.silent = False
        """Nothing passes any more, and nobody is told."""
        self.connections = 0

    def forget(self) -> None:
        """The connections there are carry nothing any more, and nobody is told; new ones do."""
        self._forgotten = set(self._pairs)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        pairs = self._pairs
        ups: set[socket.socket] = set()
        while not self._ended.is_set():
            sockets = [self._listener, *(each for each in pairs if not self.silent and each not in self._forgotten)]
            for ready in select.select(sockets, [], [], TURN_S)[0]:
                if ready is self._listener:
                    near, _ = self._listener.accept()
                    far = socket.create_connection(("127.0.0.1", self._target))
                    pairs[near], pairs[far] = far, near
                    ups.add(near)
                    self.connections += 1
                elif ready in pairs and not self._pass(ready, pairs[ready], ready in ups):
                    for each in (ready, pairs[ready]):
                        del pairs[each]
                        ups.discard(each)
                        each.close()
        for each in pairs:
            each.close()

    def _pass(self, source: socket.socket, sink: socket.socket, up: bool) -> bool:
        """One piece; False when this connection is over."""
        left = self.cut_up if up else self.cut_down
        try:
            data = source.recv(BYTES if left is None else max(1, min(BYTES, left)))
            if not data:
                return False
            if left is None:
                sink.sendall(data)
                return True
            sink.sendall(data[:left])
        except OSError:
            return False
        if up:
            self.cut_up = left - len(data) if left > len(data) else None
        else:
            self.cut_down = left - len(data) if left > len(data) else None
        return left > len(data)
