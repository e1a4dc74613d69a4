"""What is read of an API request, and how it becomes what was asked (bouncer-api.md 1.3).

Nothing here looks at a request twice: when it is worked on, its sender may be gone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from bouncerd.envelope import WireError
from bouncerd.forms import Form, read_form, unasked
from bouncerd.site import Request

_T = TypeVar("_T")


class Sent(NamedTuple):
    """What is read of a request, at once."""

    content: bytes
    content_type: str
    query: bytes

    def __repr__(self) -> str:
        """Say nothing of what it holds."""
        return f"<Sent {len(self.content)} bytes>"


@dataclass(frozen=True, slots=True)
class Asked(Generic[_T]):
    """What was asked, and which parameters nobody wanted."""

    what: _T
    ignored: list[str]


Read: TypeAlias = Callable[[Sent], Asked[_T]]


def as_form(parse: Callable[[Form], _T]) -> Read[_T]:
    """Read the parameters of body and query."""

    def read(sent: Sent) -> Asked[_T]:
        form = read_form(*sent)
        return Asked(parse(form), form.ignored)

    return read


def as_body(parse: Callable[[bytes], _T]) -> Read[_T]:
    """Read the whole body."""
    return lambda sent: Asked(parse(sent.content), unasked(*sent))


def as_nothing(sent: Sent) -> Asked[None]:
    """Ask for nothing."""
    return Asked(None, unasked(*sent))


def as_sent(sent: Sent) -> Asked[Sent]:
    """Leave it unread: what is long is read in slices, and only if it comes from a known server."""
    return Asked(sent, [])


def tried(read: Read[_T], sent: Sent) -> Asked[_T] | WireError:
    """Read, and return what is wrong with it if something is."""
    try:
        return read(sent)
    except WireError as error:
        return error


def what_was_sent(request: Request) -> Sent:
    """Read a request."""
    assert request.content is not None
    query = request.uri.partition(b"?")[2]
    return Sent(request.content.read(), header(request, b"content-type") or "", query)


def header(request: Request, name: bytes) -> str | None:
    """Return all of a header, its lines joined by commas; None if there is none."""
    values = request.requestHeaders.getRawHeaders(name)
    return None if values is None else b",".join(values).decode("latin-1")
