"""TLS that does not negotiate as it should (apns.md 7.3, C5): Twisted's own hangs up instead."""

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer


@implementer(IOpenSSLContextFactory)
class Stubborn:
    """A server's TLS which answers any offer of protocols with one of its own choice.

    `protocol` b"" answers nothing at all, like a server that has never heard of ALPN.
    """

    def __init__(self, contexts: Any, protocol: bytes = b"") -> None:
        self._context: SSL.Context = contexts.getContext()
        answer: Any = protocol or SSL.NO_OVERLAPPING_PROTOCOLS
        self._context.set_alpn_select_callback(lambda _connection, _offered: answer)

    def getContext(self) -> SSL.Context:
        """Return the context."""
        return self._context
