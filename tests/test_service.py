"""The daemon's order of stopping, at its edges."""

from typing import NoReturn

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.notifying import Notifier
from bouncerd.service import Bouncerd, Parts
from bouncerd.succession import Succession


class ServiceTests(SynchronousTestCase):
    """What twistd may ask at odd times."""

    def test_stop_without_start(self) -> None:
        """A stop before anything was started, or a second one, has nothing to do and says so."""

        def never(*_: object) -> NoReturn:
            raise AssertionError

        def build() -> Parts:
            raise AssertionError

        clock = Clock()
        notifier = Notifier({}, clock)
        succession = Succession(notifier, [], clock.seconds)
        service = Bouncerd(build, never, ([], []), clock, never, notifier, succession)
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())
