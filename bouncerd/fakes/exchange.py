"""What a script acts on, and through which calls: one stream of a connection, or all of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall

from bouncerd.fakes.records import Received
from bouncerd.fakes.steps import Headers

if TYPE_CHECKING:
    from bouncerd.fakes.server import Connection


@dataclass(slots=True, eq=False)
class Exchange:
    """What a script acts on: a stream with its request, or (stream 0) the connection."""

    connection: "Connection"
    stream: int = 0
    received: Received | None = None
    timer: IDelayedCall | None = None

    def echo(self) -> Headers:
        """Return the headers that the service puts on every answer to this request."""
        return self.connection.front.echo(self.received) if self.received else ()

    def settle(self, verdict: str, said: Headers = ()) -> None:
        """Record what the request is answered, and with which headers, if it was not yet."""
        if self.received is not None and self.connection.settle(self.received, verdict):
            self.received.said = said
            self.connection.front.settled(self.connection, self.received)

    def headers(self, lines: Headers, *, end: bool, regardless: bool) -> None:
        """Send HEADERS on the stream."""
        self.connection.send_headers(self.stream, lines, end=end, regardless=regardless)

    def data(self, body: bytes, *, end: bool, regardless: bool) -> None:
        """Send DATA on the stream."""
        self.connection.send_data(self.stream, body, end=end, regardless=regardless)

    def reset(self, code: int) -> None:
        """Send RST_STREAM on the stream."""
        self.connection.reset(self.stream, code)
