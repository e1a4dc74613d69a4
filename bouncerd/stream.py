"""One request in flight on an HTTP/2 connection: what of its answer has come so far."""

from collections.abc import Hashable, Sequence

from bouncerd.fields import Response

_STATUSES = {str(code).encode(): code for code in range(100, 600)}


class Stream:
    """One request in flight."""

    __slots__ = ("body", "headers", "size", "status", "ticket", "unsent", "window")

    def __init__(self, ticket: Hashable, window: int) -> None:
        self.ticket = ticket
        self.window = window
        self.unsent = b""
        self.status = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.body: list[bytes] = []
        self.size = 0

    def response(self, *, complete: bool) -> Response:
        """Return the answer as far as it has come."""
        return Response(self.status, self.headers, b"".join(self.body), complete)


def status_of(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return the response's status, 0 if it has none: `:status` comes first (RFC 9113, 8.3)."""
    if not headers or headers[0][0] != b":status":
        return 0
    return _STATUSES.get(headers[0][1], 0)
