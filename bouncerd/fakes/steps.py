"""What a fake can do with a stream or a connection, as data: a script is a tuple of steps.

The steps of a script run in order and, unless a `Wait` stands between them, leave in one write.
A step knows its own parameters and which call of the connection carries it out; everything that
must be remembered lives in the connection. An empty script is silence: the stream stays open
and is never answered.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bouncerd.fakes import frames

if TYPE_CHECKING:
    from bouncerd.fakes.exchange import Exchange

Headers = tuple[tuple[str, str], ...]


class Step(Protocol):
    """One thing to do now."""

    def run(self, exchange: "Exchange") -> None:
        """Do it to this stream, or to the connection that carries it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass before the next step."""

    seconds: float

    def run(self, exchange: "Exchange") -> None:
        """Do nothing: the connection sees to waiting."""


Script = tuple[Step, ...]
SILENCE: Script = ()


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer with a status, headers (the service adds its own, `apns-id` say) and a body.

    `pieces` cuts the body into that many DATA frames; `empty_end` puts END_STREAM on a last,
    empty one; `trailers` end the stream with HEADERS instead. `end=False` leaves it open.
    `regardless` answers also a stream that the client has reset. `name` is put into the record.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    pieces: int = 1
    empty_end: bool = False
    trailers: Headers = ()
    end: bool = True
    regardless: bool = False
    name: str = ""

    def run(self, exchange: "Exchange") -> None:
        """Write the response."""
        last = self.end and not self.empty_end and not self.trailers
        pieces = _cut(self.body, self.pieces) if self.body else []
        lines = (*exchange.echo(), *self.headers)
        exchange.headers(
            ((":status", str(self.status)), *lines),
            end=last and not pieces,
            regardless=self.regardless,
        )
        for number, piece in enumerate(pieces, 1):
            exchange.data(piece, end=last and number == len(pieces), regardless=self.regardless)
        if self.trailers:
            exchange.headers(self.trailers, end=self.end, regardless=self.regardless)
        elif self.empty_end:
            exchange.data(b"", end=self.end, regardless=self.regardless)
        exchange.settle(self.name or str(self.status), self.headers)


@dataclass(frozen=True, slots=True)
class Data:
    """Send body bytes of an answer whose headers are out."""

    body: bytes
    end: bool = False
    regardless: bool = False

    def run(self, exchange: "Exchange") -> None:
        """Write one DATA frame, or keep it until the client's windows have room."""
        exchange.data(self.body, end=self.end, regardless=self.regardless)


@dataclass(frozen=True, slots=True)
class Reset:
    """End the stream with RST_STREAM."""

    code: int = frames.INTERNAL_ERROR

    def run(self, exchange: "Exchange") -> None:
        """Write RST_STREAM."""
        exchange.reset(self.code)
        exchange.settle(f"reset {self.code}")


@dataclass(frozen=True, slots=True)
class GoAway:
    """Announce the end of the connection, in raw bytes, and carry on with the lower streams.

    `last_stream` None means the highest stream seen so far. Streams above it are ignored from
    now on. A PING follows, whose answer proves that the client has read the GOAWAY: what it
    opens after that is a violation. `probe=False` leaves the PING out.
    """

    last_stream: int | None = None
    code: int = frames.NO_ERROR
    debug: bytes = b""
    probe: bool = True

    def run(self, exchange: "Exchange") -> None:
        """Write GOAWAY."""
        exchange.connection.goaway(self.last_stream, self.code, self.debug, probe=self.probe)


@dataclass(frozen=True, slots=True)
class Settings:
    """Send SETTINGS: pairs of identifier and value, in order."""

    values: tuple[tuple[int, int], ...]

    def run(self, exchange: "Exchange") -> None:
        """Write SETTINGS; they bind the client once it has acknowledged them."""
        exchange.connection.send_settings(dict(self.values))


def limit(streams: int) -> Settings:
    """Make the step that sends a new MAX_CONCURRENT_STREAMS."""
    return Settings(((frames.MAX_CONCURRENT_STREAMS, streams),))


@dataclass(frozen=True, slots=True)
class Greet:
    """Send what the service sends first on a connection."""

    def run(self, exchange: "Exchange") -> None:
        """Write the first SETTINGS."""
        exchange.connection.greet()


@dataclass(frozen=True, slots=True)
class Raw:
    """Write these bytes as they are."""

    octets: bytes

    def run(self, exchange: "Exchange") -> None:
        """Write the bytes."""
        exchange.connection.write(self.octets)


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a PING."""

    opaque: bytes = b"fakefake"

    def run(self, exchange: "Exchange") -> None:
        """Write PING."""
        exchange.connection.write(frames.ping(self.opaque))


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection: "fin" (close_notify and FIN), "abort" (RST) or "cut" (FIN only).

    Streams without an answer are recorded as "dropped". `after` writes only that many bytes
    of what this script has written so far: an end in mid-frame.
    """

    how: str = "fin"
    after: int | None = None

    def run(self, exchange: "Exchange") -> None:
        """Close the transport."""
        exchange.connection.close(self.how, self.after)


@dataclass(frozen=True, slots=True)
class Hold:
    """Collect what all streams write from now on, until `Release`: one segment for them all."""

    def run(self, exchange: "Exchange") -> None:
        """Stop writing."""
        exchange.connection.outlet.hold()


@dataclass(frozen=True, slots=True)
class Release:
    """Write at once what was held."""

    def run(self, exchange: "Exchange") -> None:
        """Write again."""
        exchange.connection.outlet.release()


@dataclass(frozen=True, slots=True)
class Chop:
    """From now on write `size` bytes at a time, `gap` seconds apart; size 0 ends it."""

    size: int
    gap: float = 0.0

    def run(self, exchange: "Exchange") -> None:
        """Set the pace."""
        exchange.connection.outlet.pace(self.size, self.gap)


@dataclass(frozen=True, slots=True)
class Withhold:
    """Give the client no window credit, on any stream, until `Credit`."""

    def run(self, exchange: "Exchange") -> None:
        """Stop crediting."""
        exchange.connection.allowance.withhold()


@dataclass(frozen=True, slots=True)
class Credit:
    """Give the credit that was withheld, and credit promptly again."""

    def run(self, exchange: "Exchange") -> None:
        """Write what is owed."""
        for stream, increment in exchange.connection.allowance.resume():
            exchange.connection.write(frames.window_update(stream, increment))


@dataclass(frozen=True, slots=True)
class Ignore:
    """Stop reading (a half-open peer), or read all but these frame types: `Ignore((PING,))`."""

    kinds: tuple[int, ...] | None = None

    def run(self, exchange: "Exchange") -> None:
        """Go deaf."""
        exchange.connection.ignore(self.kinds)


@dataclass(frozen=True, slots=True)
class Slow:
    """Read only `rate` bytes a second from now on (0: all there is), in a small socket buffer."""

    rate: float
    buffer: int = 2048

    def run(self, exchange: "Exchange") -> None:
        """Narrow the way in."""
        exchange.connection.slow_down(self.rate, self.buffer)


def trickle(status: int, headers: Headers, body: bytes, gap: float) -> Script:
    """Make the script that answers one byte of body at a time, `gap` seconds apart."""
    script: list[Step] = [Respond(status, headers, end=False)]
    for at in range(len(body)):
        script += [Wait(gap), Data(body[at : at + 1], end=at + 1 == len(body))]
    return tuple(script)


def _cut(body: bytes, pieces: int) -> list[bytes]:
    """Cut a body into pieces of about the same size."""
    size = -(-len(body) // pieces)
    return [body[at : at + size] for at in range(0, len(body), size)]
