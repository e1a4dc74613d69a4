"""The daemon's order of starting and stopping, and what happens at their edges."""

from collections.abc import Callable
from typing import Any, NoReturn, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from bouncerd.notifying import Notifier
from bouncerd.service import Bouncerd, CannotStart, Parts
from bouncerd.site import Site
from bouncerd.store.base import StoreError
from bouncerd.succession import Succession
from tests.lane_kit import LaneKit
from tests.test_leaving import Slow


class Part:
    """Any part of the daemon: notes what it is asked, and answers at once, or as a test says."""

    def __init__(self, name: str, heard: list[str], **answers: Any) -> None:
        self._name = name
        self._heard = heard
        self._answers = answers

    def __getattr__(self, what: str) -> Callable[..., Any]:
        def ask(*_: object) -> Any:
            self._heard.append(f"{self._name} {what}")
            answer = self._answers.get(what, succeed(None))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


class Health:
    """What is told of the daemon."""

    listening = stopping = False

    def state(self, _lane: object) -> str:
        """Say how a lane is."""
        return "up"

    def reasons(self) -> list[str]:
        """Say what is wrong."""
        return []


class Told(Notifier):
    """Notes what systemd is told."""

    def __init__(self, clock: Clock, heard: list[str]) -> None:
        super().__init__({}, clock)
        self._told = heard

    def _send(self, *lines: str, descriptors: object = ()) -> None:
        del descriptors
        self._told += [line for line in lines if not line.startswith("EXTEND")]


class ServiceCase(SynchronousTestCase):
    """A daemon of parts that only take notes, around a real lane."""

    def setUp(self) -> None:
        self.heard: list[str] = []
        self.failed: list[str] = []
        self.kit = LaneKit()
        self.clock = self.kit.clock
        self.opening: Deferred[None] = Deferred()
        self.store = Part("store", self.heard, open=self.opening)
        self.counting = Part("counting", self.heard)
        self.page: Resource = Resource()
        self.refused = False

    def build(self) -> Parts:
        """Stand for building.build."""
        heard = self.heard
        observing: Any = Part("observing", heard)
        observing.health, observing.alerts = Health(), Part("alerts", heard)
        reloader = Part("reloader", heard)
        site = self.site = Site(self.page, self.clock, self.clock.seconds)
        facts: Any = (self.store, [self.kit.lane], [Part("token", heard)], site, site)
        rest: Any = (self.kit.routes, reloader, observing, self.counting)
        self.reloader: Any = reloader
        return Parts(*facts, *rest)

    def listen(self, endpoint: str, factory: IProtocolFactory) -> IListeningPort:
        """Stand for tap.listen."""
        del factory
        if self.refused:
            raise CannotStart(f"listen: {endpoint}: taken")
        self.heard.append(f"{endpoint} opens")
        return cast(IListeningPort, Part(endpoint, self.heard))

    def service(self) -> Bouncerd:
        """Make the service."""
        notifier = Told(self.clock, self.heard)
        succession = Succession(notifier, [], self.clock.seconds)
        return Bouncerd(
            self.build,
            self.listen,
            (["api"], ["admin"]),
            self.clock,
            self.failed.append,
            notifier,
            succession,
        )

    def started(self) -> Bouncerd:
        """Make and start it."""
        service = self.service()
        service.startService()
        self.clock.advance(0)
        return service

    def stop(self, service: Bouncerd) -> None:
        """Stop it, and see that it is over."""
        stopped = service.stopService()
        self.clock.pump([0.1] * 20)
        self.successResultOf(stopped)


class OrderTests(ServiceCase):
    """What comes after what."""

    def test_start(self) -> None:
        """It listens first, and is ready when the store is open, too."""
        self.started()
        begun = ["api opens", "admin opens", "observing start", "counting start", "token start"]
        self.assertEqual(self.heard, [*begun, "store open"])
        self.opening.callback(None)
        self.assertEqual(self.heard[-1], "READY=1")

    def test_stop(self) -> None:
        """Nobody comes in any more, pushes end, counts are stored, and the store closes last."""
        service = self.started()
        self.opening.callback(None)
        del self.heard[:]
        self.stop(service)
        wanted = ["STOPPING=1", "reloader stop", "api stopListening", "token stop"]
        wanted += ["counting stop", "store close", "observing stop", "alerts finished"]
        wanted += ["admin stopListening"]
        self.assertEqual(self.heard, wanted)
        self.assertEqual(self.failed, [])

    def test_counts_come_after_the_last_push(self) -> None:
        """What becomes of a push during the stop is counted, and stored."""
        self.kit.start()
        service = self.started()
        call = self.kit.admit()
        stopped = service.stopService()
        self.clock.pump([0.1] * 5)
        self.assertNotIn("counting stop", self.heard)
        self.kit.server.answer_all()
        self.clock.pump([0.1] * 5)
        self.successResultOf(stopped)
        self.assertEqual((call.delivered, self.heard.count("counting stop")), (1, 1))

    def test_a_step_that_fails(self) -> None:
        """A fault in the stop is logged, and the rest of it is done: the store is closed."""
        self.counting = Part("counting", self.heard, stop=Deferred())
        service = self.started()
        self.site.leave = None  # type: ignore[assignment, method-assign]  # a bug of ours
        stopped = service.stopService()
        self.counting.stop().errback(ValueError("canary"))
        self.clock.pump([0.1] * 5)
        self.successResultOf(stopped)
        self.assertIn("store close", self.heard)
        self.assertEqual(len(self.flushLoggedErrors(TypeError, ValueError)), 2)

    def test_who_waits_for_the_store(self) -> None:
        """A caller whose answer waits for a database that is out of reach gets one in the end."""
        page, closing = Slow(), Deferred[None]()
        self.page = page
        self.store = Part("store", self.heard, open=self.opening, close=closing)
        service = self.started()
        channel = self.site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        stopped = service.stopService()
        self.clock.pump([0.1] * 60)
        self.assertIn("store close", self.heard)
        self.assertEqual(transport.value(), b"")
        page.answer()  # the store gave its question up
        closing.callback(None)
        self.clock.pump([0.1] * 5)
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200"))
        self.assertNoResult(stopped)  # it is still on its way
        channel.connectionLost()
        self.clock.pump([0.1] * 2)
        self.successResultOf(stopped)


class EdgeTests(ServiceCase):
    """What twistd may ask at odd times, and what may go wrong."""

    def test_stop_without_start(self) -> None:
        """A stop before anything was started, or a second one, has nothing to do and says so."""

        def never(*_: object) -> NoReturn:
            raise AssertionError

        clock = Clock()
        notifier = Notifier({}, clock)
        succession = Succession(notifier, [], clock.seconds)
        service = Bouncerd(never, never, ([], []), clock, never, notifier, succession)
        self.successResultOf(service.stopService())
        self.successResultOf(service.stopService())

    def test_stop_before_the_store_is_open(self) -> None:
        """A stop while the database is out of reach closes it; what then comes is too late."""
        service = self.started()
        self.stop(service)
        self.assertIn("store close", self.heard)
        self.opening.errback(StoreError("closed"))
        self.clock.advance(1)
        self.assertEqual((self.failed, "READY=1" in self.heard), ([], False))

    def test_a_store_that_does_not_open(self) -> None:
        """What the operator must mend ends the process, with one line and no content."""
        service = self.started()
        self.opening.errback(StoreError("a newer bouncerd has written it"))
        self.clock.advance(0)
        self.assertEqual(self.failed, ["store: a newer bouncerd has written it"])
        self.stop(service)

    def test_a_store_that_fails_to_open(self) -> None:
        """So does a fault of ours, without what it says."""
        service = self.started()
        self.opening.errback(ValueError("canary"))
        self.clock.advance(0)
        self.assertEqual(self.failed, ["store: it fails to open"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.stop(service)

    def test_a_port_that_is_taken(self) -> None:
        """Nothing is started then."""
        self.refused = True
        self.started()
        self.assertEqual((self.failed, self.heard), (["listen: api: taken"], []))

    def test_a_reload_during_the_start(self) -> None:
        """The end of a reload is not said to be the end of a start."""
        self.started()
        self.reloader.begins()
        self.reloader.ends()
        self.assertNotIn("READY=1", self.heard)
        self.opening.callback(None)
        self.reloader.begins()
        self.reloader.ends()
        self.assertEqual(self.heard.count("READY=1"), 2)
