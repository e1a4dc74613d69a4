"""Copies of another library's sockets, for a reactor to watch.

A library may close its socket, or open another under the same number, without a word. epoll has
forgotten it then, the reactor has not: whatever connection gets the number next would never be
read from. A copy keeps its number until we close it.
"""

import os


class Copies:
    """Our own descriptors of the sockets that one foreign connection has had."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, int], int] = {}
        self._latest = -1

    def __len__(self) -> int:
        """Count them."""
        return len(self._copies)

    def of(self, descriptor: int) -> int:
        """Return the copy of this socket; of the one before if it is none (any more)."""
        try:
            status = os.fstat(descriptor)
        except OSError:
            return self._latest
        key = status.st_dev, status.st_ino
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = os.dup(descriptor)
        self._latest = copy
        return copy

    def close(self) -> None:
        """Let go of all."""
        for copy in self._copies.values():
            os.close(copy)
        self._copies.clear()
        self._latest = -1
