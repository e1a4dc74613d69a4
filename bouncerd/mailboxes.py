"""Whether mail to a contact address may arrive, as far as DNS says (bouncer-api.md 4, step 2).

A check against typing errors, not against malice: only what is certain refuses a registration.
When DNS fails, is slow or contradicts itself, the address is taken as it is.
"""

from collections.abc import Container

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bouncerd.deadline import TooLate, until
from bouncerd.enrolment import ascii_name
from bouncerd.envelope import bad_request
from bouncerd.resolving import Names


class Mailboxes:
    """Checks the domains of contact addresses; `disposable` are those of throw-away ones."""

    def __init__(self, names: Names, clock: IReactorTime, disposable: Container[str] = ()) -> None:
        self._names = names
        self._clock = clock
        self._disposable = disposable

    async def check(self, email: str, by: float) -> None:
        """Raise the WireError that a (well-formed) address deserves; `by` the caller is answered.

        Takes half of the time that is left, at most: the other half is for the store.
        """
        domain = email.rpartition("@")[2]
        if domain.lower() in self._disposable:
            raise bad_request("Please use your real email address.")
        if domain.startswith("[") or domain == "localhost":
            return  # names a host without DNS
        name = ascii_name(domain)
        left = max(0.0, by - self._clock.seconds())
        asked = Deferred.fromCoroutine(self._problem(name))
        try:
            problem = await until(by - left / 2, self._clock, asked)
        except TooLate:
            return
        if problem:
            raise bad_request(f"{domain} {problem}")

    async def _problem(self, name: str) -> str:
        if await self._names.takes_mail(name) is not False:
            return ""
        exists = await self._names.exists(name)
        if exists:
            return _NO_MX
        # The DNS of a closed network, or of none, says the same of every name.
        certain = exists is False and await self._names.knows_the_world(name.rpartition(".")[2])
        return "does not exist" if certain else ""


_NO_MX = "is invalid because it does not have any MX records"
