"""How a request handed to an HTTP/2 connection ends: exactly once, in one of three ways."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from bouncerd.fields import Response


@dataclass(frozen=True, slots=True)
class Answered:
    """The server answered; at least the status is known."""

    ticket: Hashable
    response: Response


@dataclass(frozen=True, slots=True)
class Unsent:
    """The server certainly did not act on the request. `refused`: it said so (REFUSED_STREAM)."""

    ticket: Hashable
    why: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The request was on its way, and no answer will come: it may have been acted on."""

    ticket: Hashable
    why: str


Ending = Answered | Unsent | Lost


@dataclass(frozen=True, slots=True)
class GoAway:
    """What the server said when it announced the end; `debug` is foreign text."""

    last_stream_id: int
    code: int
    debug: bytes = field(repr=False)
