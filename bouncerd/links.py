"""Links to our pages, which we put into answers, and the cookies that they are exchanged for.

A link says which server, or which realm of a server, its holder may see the plan of; nothing of
who that is. It lives for two hours, and so does the cookie.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bouncerd.envelope import bad_request
from bouncerd.seals import Seal, key_for
from bouncerd.store.base import Store

LASTS = 2 * 3600.0

LOGIN = "/remote-billing-login/"


@dataclass(frozen=True, slots=True)
class Sight:
    """What its holder may see: the plan of a server, or of one of its realms."""

    server: str
    realm: str | None = None


class Links:
    """Makes and reads links and cookies. `public_url` is where the world finds us, or nothing."""

    def __init__(
        self, store: Store, now: Callable[[], float], public_url: str, support: str
    ) -> None:
        self.public_url = public_url
        self._store = store
        self._now = now
        self.support = support
        self._secret: bytes | None = None

    async def to_plan(self, sight: Sight) -> str:
        """Return the address at which a browser gets to see a plan."""
        if not self.public_url:
            contact = f" Contact {self.support}." if self.support else ""
            raise bad_request(f"This push bouncer has no web pages of its own.{contact}")
        return f"{self.public_url}{LOGIN}{await self._closed('link', sight)}"

    async def from_link(self, text: str) -> Sight | None:
        """Return what a link is good for, or None if it is not (any more)."""
        return await self._opened("link", text)

    async def to_cookie(self, sight: Sight) -> str:
        """Return what a browser shows us with each of its requests."""
        return await self._closed("cookie", sight)

    async def from_cookie(self, text: str) -> Sight | None:
        """Return what a cookie is good for, or None if it is not (any more)."""
        return await self._opened("cookie", text)

    async def _closed(self, purpose: str, sight: Sight) -> str:
        text = f"{sight.server} {sight.realm or ''}"
        return (await self._seal(purpose)).close(text, self._now())

    async def _opened(self, purpose: str, text: str) -> Sight | None:
        said = (await self._seal(purpose)).open(text, self._now())
        if said is None:
            return None
        server, _, realm = said.partition(" ")
        return Sight(server, realm or None)

    async def _seal(self, purpose: str) -> Seal:
        if self._secret is None:
            self._secret = await self._store.secret()
        return Seal(key_for(self._secret, purpose), LASTS)
