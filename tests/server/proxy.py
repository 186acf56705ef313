"""A network between a router and its nodes that does as a test wants."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading

FLOWS, STALLS, SWALLOWS = "flows", "stalls", "swallows"

_LOOK_S = 0.02
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset


class Proxy:
    """A thread for each port, and for each connection. What comes `flows`, `stalls` (nothing is read), or is
    `swallowed`. `upstreams` may be set when `ports` are known already."""

    def __init__(self, count):
        self.upstreams, self._modes = [None] * count, [FLOWS] * count
        self._cuts = [[] for _ in range(count)]  # of each connection: which sides to cut
        self._over = threading.Event()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.ports = [listener.getsockname()[1] for listener in self._listeners]
        self._threads = [threading.Thread(target=self._accept, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def set(self, number, mode):
        self._modes[number] = mode

    def cut(self, number, *sides):
        """All connections there are: both sides, or one, and the other does not hear of it."""
        if len(sides) == 1:
            self._modes[number] = SWALLOWS
        for cuts in self._cuts[number]:
            cuts |= set(sides or (0, 1))

    def close(self):
        self._over.set()
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.close()

    def _accept(self, number):
        listener, connections = self._listeners[number], []
        while not self._over.is_set():
            if select.select([listener], [], [], _LOOK_S)[0]:
                near, _ = listener.accept()
                connections.append(threading.Thread(target=self._connect, args=(number, near)))
                connections[-1].start()
        for thread in connections:
            thread.join()

    def _connect(self, number, near):
        if self.upstreams[number] is None:
            near.close()
            return
        host, _, port = self.upstreams[number].rpartition(":")
        with near, contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as far:
            self._pass_on(number, near, far)

    def _pass_on(self, number, *sides):
        cuts = set()
        self._cuts[number].append(cuts)
        open_ = {0, 1}
        while open_ and not self._over.is_set():
            for side in cuts & open_:
                sides[side].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sides[side].close()
                open_.remove(side)
            mode = self._modes[number]
            if mode == STALLS or not open_:
                self._over.wait(_LOOK_S)
                continue
            for one in select.select([sides[side] for side in open_], [], [], _LOOK_S)[0]:
                side = sides.index(one)
                data = one.recv(1 << 16)
                if mode == FLOWS and 1 - side in open_ and data:
                    sides[1 - side].sendall(data)
                elif not data or mode == FLOWS:
                    return
