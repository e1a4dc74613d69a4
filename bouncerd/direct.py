"""How answers of the API are written; and past URL routing, which costs a sixth of the work."""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from bouncerd.site import Request

_NEVER = b"max-age=0, no-cache, no-store, must-revalidate, private"


class Direct(Resource):
    """Serves requests to exactly these paths itself, and leaves the others to another resource."""

    isLeaf = True

    def __init__(self, often: Mapping[bytes, Callable[[Request], None]], rest: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._often = often
        self._rest = rest

    def render(self, request: Any) -> Any:
        """Answer, now or later. Another spelling of a path is for the routing to understand."""
        serve = self._often.get(request.path)
        if serve is None or request.method != b"POST":
            return self._rest.render(request)
        serve(request)
        return NOT_DONE_YET


def write_head(
    request: IRequest, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> bytes:
    """Write all of an answer but its body, which is returned."""
    request.setResponseCode(status)
    fields = request.responseHeaders
    if body:
        fields.setRawHeaders(b"Content-Type", [b"application/json"])
        fields.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    fields.setRawHeaders(b"Cache-Control", [_NEVER])
    fields.setRawHeaders(b"Expires", fields.getRawHeaders(b"Date", [b"0"]))
    for name, value in (headers or {}).items():
        fields.setRawHeaders(name.encode(), [value.encode()])
    return body


def end(request: Request, body: bytes) -> None:
    """Write the answer, if somebody still waits for it."""
    if request.channel is not None:
        request.write(body)  # type: ignore[no-untyped-call]  # likewise
        request.finish()
