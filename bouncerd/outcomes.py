"""What became of pushes: counted by provider, app and reason; at `verbose` a line for each.

The app is one that the operator configured, else `other`: what tenants register is their text.
A device is named by its row, a token by a short hash under a key that the store keeps.
"""

from collections.abc import Callable, Collection, Iterator

from twisted.logger import Logger

from bouncerd.logs import Verbosity, short_hash
from bouncerd.meters import OTHER
from bouncerd.model import Push
from bouncerd.reasons import reason_class

log = Logger()

Note = Callable[[Push, str, str], None]


class Outcomes:
    """The counts of all providers."""

    def __init__(self, verbosity: Verbosity) -> None:
        self.verbosity = verbosity
        self._books: dict[str, _Book] = {}
        #: Names tokens in the log; until it is known, they have no name.
        self.hash_key: bytes | None = None

    def noting(self, provider: str, apps: Collection[str] | None) -> Note:
        """Return what a lane tells of its pushes' ends and retries. `apps` None: any, so `other`.

        Asked again for one provider, it goes on with the same counts.
        """
        book = self._books.setdefault(provider, _Book(provider, self))
        book.apps = frozenset(apps or ())
        return book.note

    def counted(self) -> Iterator[tuple[tuple[str, str, str, str], int]]:
        """Yield provider, app, how it ended or `retry`, and class of the reason; and how many."""
        for book in self._books.values():
            yield from book.counted()

    def tell(self, provider: str, app: str, push: Push, kind: str, reason: str) -> None:
        """Log what became of a push."""
        key, device = self.hash_key, push.device
        log.info(
            "Push {push_id} by {server} through {provider}: {outcome}{rest}",
            push_id=push.id,
            server=push.server,
            provider=provider,
            app=app,
            kind=device.kind,
            outcome=kind,
            reason=reason,
            rest=reason and f" ({reason})",
            device=device.id,
            token=None if key is None else short_hash(key, device.token),
        )


class _Book:
    """One provider's counts."""

    def __init__(self, provider: str, outcomes: Outcomes) -> None:
        self.apps: frozenset[str] = frozenset()
        self._provider = provider
        self._outcomes = outcomes
        self._counts: dict[tuple[str, str, str], int] = {}

    def note(self, push: Push, kind: str, reason: str) -> None:
        """Count an end or a retry."""
        app = push.device.app_id
        if app is None or app not in self.apps:
            app = OTHER
        key = app, kind, reason
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._outcomes.verbosity.verbose:
            self._outcomes.tell(self._provider, app, push, kind, reason)

    def counted(self) -> Iterator[tuple[tuple[str, str, str, str], int]]:
        classes: dict[tuple[str, str, str, str], int] = {}
        for (app, kind, reason), count in self._counts.items():
            key = self._provider, app, kind, reason_class(kind, reason)
            classes[key] = classes.get(key, 0) + count
        yield from classes.items()
