"""Why a connection failed, in our words: for the log and the health page."""

from twisted.internet.error import ConnectError
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

#: What a failure to connect or a lost connection is called in logs and on the health page.
_WORDS: dict[str, str] = {
    "ConnectionRefusedError": "connection refused",
    "ConnectError": "connection failed",
    "ConnectionDone": "closed by the peer",
    "ConnectionLost": "connection lost",
    "ConnectionAborted": "given up by us",
    "DNSLookupError": "host name not found",
    "NoRouteError": "no route to the host",
    "TimeoutError": "no connection in time",
    "TCPTimedOutError": "no connection in time",
    "VerificationError": "the certificate is not for this host name",
    "CancelledError": "stopped",
}


class NotConnected(ConnectError):
    """A connection failed in a way of which there is more to say; `why` is in our words."""

    def __init__(self, why: str) -> None:
        super().__init__(string=why)  # type: ignore[no-untyped-call]  # Twisted's
        self.why = why


def words(reason: Failure, transport: object = None) -> str:
    """Put a connection's failure in our words, plus OpenSSL's own constants; no foreign text."""
    error = reason.value
    assert error is not None
    if isinstance(error, NotConnected):
        return error.why
    for ancestor in type(error).__mro__:
        if ancestor.__name__ in _WORDS:
            return _WORDS[ancestor.__name__]
    if type(error).__module__.startswith("OpenSSL"):
        details = error.args[0] if error.args else []
        names = [str(entry[-1]) for entry in details] if isinstance(details, list) else []
        return "TLS: " + (_tls_words(names, transport) or "closed without goodbye")
    return type(error).__name__


def _tls_words(names: list[str], transport: object) -> str:
    """Tell whose certificate is bad, and how: OpenSSL calls both sides' alike, and all alike."""
    said = ", ".join(names)
    if any("alert" in name for name in names):
        return f"refused by the provider, which says: {said}"
    if "certificate verify failed" in names and isinstance(transport, TLSMemoryBIOProtocol):
        chain = transport.getHandle().get_peer_cert_chain() or ()
        if any(certificate.has_expired() for certificate in chain):
            return "the provider's certificate has expired"
        return "the provider's certificate is signed by no authority that we trust"
    return said
