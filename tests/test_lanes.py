"""What a reload does to lanes: they move to new connections, come and go; no push is lost."""

import gc
from dataclasses import replace
from random import Random
from typing import Any
from weakref import ref

from OpenSSL import crypto
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.config import ApnsSection, Config, ConfigError, read
from bouncerd.lane import Lane
from bouncerd.lanes import MOVE_WITHIN, Lanes
from bouncerd.ledger import End
from bouncerd.link import Manners
from bouncerd.model import Gone, Push
from bouncerd.patience import APNS_PATIENCE
from bouncerd.pool import Pool
from bouncerd.providers import Outfit, Section, outfit
from bouncerd.settings import Proxy
from tests.memory import APP, Server, SimpleProvider, a_push
from tests.places import a_directory

NOBODY = "org.example.nobody"


def a_section(name: str = "apns", *topics: str, connections: int = 1) -> ApnsSection:
    """Return a section; `connections` tells two of a name apart."""
    of_any = frozenset(topics) or None
    return ApnsSection(name, of_any, "h", 443, "production", None, None, None, connections)


class LanesCase(SynchronousTestCase):
    """Lanes whose sections' providers are in memory: one server for each that was ever made."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.servers: list[Server] = []
        self.down = False
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        path = a_directory(self) / "bouncer.ini"
        path.write_text("[bouncerd]\n")
        self.plain = read(path, environ={}, now=0.0)

    def make(self, section: Section, clock: Clock, _before: Outfit | None) -> Outfit:
        """Stand for providers.outfit."""
        provider, server = SimpleProvider(), Server(self.clock)
        provider.name = section.name
        server.refusing = self.down
        self.servers.append(server)
        manners = Manners(answer_within=30, quiet=15)
        size = section.connections
        pool = Pool(section.name, server.connect, manners, size, clock, Random(1))
        return Outfit(section, provider, pool, APNS_PATIENCE)

    def config(self, *sections: ApnsSection) -> Config:
        """Return a configuration with these sections."""
        return replace(self.plain, apns=sections)

    def lanes(self, *sections: ApnsSection) -> Lanes:
        """Build and start."""

        def forget(_push: Push, _gone: Gone, _at: float) -> "Deferred[None]":
            return succeed(None)

        lanes = Lanes(
            self.config(*sections), self.clock, forget, make=self.make, now=self.clock.seconds
        )
        lanes.start()
        for lane in lanes.all:
            lane.pool.start(lane)
        self.clock.advance(0)
        return lanes

    def reload(self, lanes: Lanes, *sections: ApnsSection) -> None:
        """Give them another configuration."""
        lanes.apply(lanes.prepare(self.config(*sections)))
        self.clock.advance(0)

    def pass_seconds(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.pump([0.0, *([0.5] * (2 * seconds))])

    def push(self, lanes: Lanes, count: int = 1) -> Lane:
        """Put pushes; return where they went."""
        lane = lanes.routes.lane(a_push())
        assert lane is not None
        lanes.routes.admit("s1", [a_push() for _ in range(count)])
        self.clock.advance(0)
        return lane

    def said(self) -> list[str]:
        """Return what the log has of lanes."""
        return [str(e["log_format"]) for e in self.events if "lane" in e]


class MovingTests(LanesCase):
    """A lane whose section changed."""

    def test_moves_when_the_new_connection_is_up(self) -> None:
        """Pushes take the old connection until the new one is up, then the new one only."""
        lanes = self.lanes(a_section())
        lane = self.push(lanes, 2)
        (old,) = self.servers
        self.assertEqual(len(old.connections[0].requests), 2)
        self.reload(lanes, a_section(connections=2))
        _, new = self.servers
        self.assertEqual(new.dials, [])  # a second after the last dial, as ever
        self.push(lanes)
        self.assertEqual(len(old.connections[0].requests), 3)
        self.pass_seconds(1)
        self.assertIn("Lane {lane} uses new connections", self.said())
        self.push(lanes)
        self.assertEqual(len(new.open[0].requests), 1)
        old.answer_all()
        new.answer_all()
        self.pass_seconds(1)
        self.assertEqual(lane.ledger.ends[End.DELIVERED], 4)
        self.assertEqual((old.open, len(new.open), lanes.all), ([], 2, [lane]))

    def test_what_was_cut_off_goes_over_the_new_one(self) -> None:
        """An old connection that does not finish in time loses no push."""
        lanes = self.lanes(a_section())
        lane = self.push(lanes)
        self.reload(lanes, a_section(connections=2))
        self.pass_seconds(15)
        old, new = self.servers
        self.assertEqual(old.open, [])
        self.assertEqual(new.answer_all(), 1)
        self.assertEqual(lane.ledger.ends[End.DELIVERED], 1)

    def test_nothing_changed(self) -> None:
        """A section that is the same keeps its connections."""
        lanes = self.lanes(a_section())
        self.reload(lanes, a_section())
        self.pass_seconds(5)
        self.assertEqual((len(self.servers), len(self.servers[0].dials)), (1, 1))

    def test_new_ones_that_do_not_come_up(self) -> None:
        """While the new connections fail, the old ones go on, and the operator hears of it."""
        lanes = self.lanes(a_section())
        self.down = True
        self.reload(lanes, a_section(connections=2))
        self.pass_seconds(int(MOVE_WITHIN) + 1)
        alerts = [event for event in self.events if event.get("alert")]
        self.assertEqual([event["alert"] for event in alerts], ["reload-failed"])
        self.assertEqual(alerts[0]["why"], "connection failed")
        lane = self.push(lanes)
        self.servers[0].answer_all()
        self.assertEqual(lane.ledger.ends[End.DELIVERED], 1)
        self.servers[1].refusing = False
        self.pass_seconds(60)
        self.push(lanes)
        self.assertEqual(self.servers[1].answer_all(), 1)
        self.assertEqual(self.servers[0].open, [])

    def test_moves_in_the_end_if_the_old_ones_are_down(self) -> None:
        """Where neither works, the health page is to tell of the new ones."""
        self.down = True
        lanes = self.lanes(a_section())
        self.reload(lanes, a_section(connections=2))
        old = lanes.all[0].pool
        self.pass_seconds(int(MOVE_WITHIN) + 1)
        self.assertIsNot(lanes.all[0].pool, old)
        self.assertEqual(lanes.all[0].pool.state().wanted, 2)

    def test_another_reload_meanwhile(self) -> None:
        """Only the last of several reloads counts, and nothing is left of those between."""
        lanes = self.lanes(a_section())
        self.reload(lanes, a_section(connections=2))
        self.reload(lanes, a_section(connections=3))
        self.pass_seconds(5)
        old, between, new = self.servers
        self.assertEqual((old.open, between.open, len(new.open)), ([], [], 3))

    def test_back_again(self) -> None:
        """A change that is taken back before it was done leaves all as it is."""
        lanes = self.lanes(a_section())
        self.down = True
        self.reload(lanes, a_section(connections=2))
        self.reload(lanes, a_section())
        self.pass_seconds(100)
        self.assertEqual(len(self.servers[0].open), 1)
        self.assertLessEqual(len(self.servers[1].dials), 1)
        self.assertNotIn("Lane {lane} uses new connections", self.said())

    def test_stop_meanwhile(self) -> None:
        """A process that stops in the middle of it leaves no connection and no timer."""
        lanes = self.lanes(a_section(), a_section("apns:two", NOBODY))
        self.push(lanes)
        self.reload(lanes, a_section("apns:two", NOBODY, connections=2))
        lanes.stay()
        lanes.stop()
        for lane in lanes.all:
            lane.stop(5.0)
            lane.pool.stop()
        self.pass_seconds(20)
        self.assertEqual([server.open for server in self.servers], [[], [], []])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ComingAndGoingTests(LanesCase):
    """Sections that appear and vanish."""

    def test_a_new_section(self) -> None:
        """A new section sends at once, and takes its apps from the one for all others."""
        lanes = self.lanes(a_section())
        before = self.push(lanes)
        self.reload(lanes, a_section(), a_section("apns:two", APP))
        after = self.push(lanes)
        self.assertEqual((before.name, after.name), ("apns", "apns:two"))
        self.pass_seconds(1)
        for server in self.servers:
            server.answer_all()
        self.assertEqual([lane.ledger.ends[End.DELIVERED] for lane in lanes.all], [1, 1])

    def test_a_section_that_is_gone(self) -> None:
        """What waits for it is worked off; then its connections and its lane are gone."""
        lanes = self.lanes(a_section(), a_section("apns:two", APP))
        two = self.push(lanes)
        self.assertEqual(two.name, "apns:two")
        self.reload(lanes, a_section())
        self.assertEqual(self.push(lanes).name, "apns")
        self.pass_seconds(5)
        self.assertEqual([lane.name for lane in lanes.all], ["apns", "apns:two"])
        self.servers[1].answer_all()
        self.pass_seconds(3)
        self.assertEqual([lane.name for lane in lanes.all], ["apns"])
        self.assertEqual(two.ledger.ends[End.DELIVERED], 1)
        self.assertEqual(self.servers[1].open, [])

    def test_a_section_that_comes_back(self) -> None:
        """One that comes back before it was worked off goes on; later it is a new one."""
        lanes = self.lanes(a_section(), a_section("apns:two", APP))
        two = self.push(lanes)
        self.reload(lanes, a_section())
        self.reload(lanes, a_section(), a_section("apns:two", APP))
        self.servers[1].answer_all()
        self.pass_seconds(3)
        self.assertIs(self.push(lanes), two)
        self.servers[1].answer_all()
        self.reload(lanes, a_section())
        self.pass_seconds(3)
        self.reload(lanes, a_section(), a_section("apns:two", APP))
        self.assertIsNot(self.push(lanes), two)

    def test_a_section_that_is_renamed(self) -> None:
        """What waits goes with the new section's credential, what is in flight with the old one."""
        lanes = self.lanes(a_section("apns:one", APP))
        one = self.push(lanes)
        one.pause()
        self.push(lanes, 2)
        self.reload(lanes, a_section("apns:two", APP))
        two = self.push(lanes)
        self.pass_seconds(1)
        self.assertEqual([len(server.open[0].requests) for server in self.servers], [1, 3])
        self.servers[0].refusing = True
        self.servers[0].open[0].lose()  # cut off: this goes again, too
        self.pass_seconds(5)
        self.servers[1].answer_all()
        self.pass_seconds(2)
        self.assertEqual(lanes.all, [two])
        self.assertEqual((one.ledger.ends[End.HANDED_OVER], one.ledger.waiting()), (3, 0))
        self.assertEqual((two.ledger.taken_over, two.ledger.ends[End.DELIVERED]), (3, 4))

    def test_an_app_that_changes_its_section(self) -> None:
        """What waits for it goes along; what waits for others, or for nobody now, stays."""
        self.down = True
        lanes = self.lanes(a_section("apns:one", APP, "org.example.b", "org.example.c"))
        apps = [APP, APP, "org.example.b", "org.example.c"]
        lanes.routes.admit("s1", [a_push(app=app) for app in apps])
        two = a_section("apns:two", APP)
        self.reload(lanes, a_section("apns:one", "org.example.b"), two)
        self.assertEqual([lane.waiting for lane in lanes.all], [2, 2])
        self.assertEqual([lane.ledger.waiting() for lane in lanes.all], [2, 2])
        self.reload(lanes, two)
        self.assertEqual([lane.waiting for lane in lanes.all], [2, 2])

    def test_fifty_reloads(self) -> None:
        """Nothing of what was replaced stays in memory, however often that happens."""
        lanes = self.lanes(a_section())
        made: list[Any] = []
        for number in range(50):
            self.push(lanes)
            other = a_section(f"apns:{number}", NOBODY)
            self.reload(lanes, a_section(connections=1 + number % 2), other)
            self.pass_seconds(2)
            clients = [each.client for server in self.servers for each in server.connections]
            made += [ref(each) for each in [*lanes.all, *clients] if each is not None]
            made += [ref(each) for lane in lanes.all for each in (lane.pool, lane.provider)]
            for server in self.servers:
                server.answer_all()
            self.pass_seconds(2)
            del clients, self.servers[:-4], self.events._events[:]
        self.servers.clear()
        gc.collect()
        left = {each() for each in made} - {None}
        self.assertEqual(len([each for each in left if isinstance(each, Lane)]), 2)
        self.assertLess(len(left), 12)
        links = sum(lane.pool.state().ready for lane in lanes.all)
        self.assertEqual(len(self.clock.getDelayedCalls()), links)

    def test_none_at_all(self) -> None:
        """Without any section left, nothing is served and nothing stays open."""
        lanes = self.lanes(a_section())
        self.reload(lanes)
        self.pass_seconds(3)
        self.assertEqual((lanes.all, lanes.routes.lane(a_push())), ([], None))
        self.assertEqual(self.servers[0].open, [])

    def test_limits(self) -> None:
        """The bounds of what waits are those of the last reload."""
        lanes = self.lanes(a_section())
        config = self.config(a_section())
        small = replace(config, limits=replace(config.limits, queue=5))
        lanes.apply(lanes.prepare(small))
        self.servers[0].connections[0].lose()
        self.servers[0].refusing = True
        lane = self.push(lanes, 5)
        self.push(lanes, 3)
        self.assertEqual((lane.waiting, lane.ledger.ends[End.EXPIRED]), (5, 3))


class PreparingTests(LanesCase):
    """Nothing is touched until all is made."""

    def test_what_cannot_be_made(self) -> None:
        """A section that cannot be made is named, and everything stays as it was."""
        lanes = self.lanes(a_section())

        def make(section: Section, clock: Clock, before: Outfit | None) -> Outfit:
            raise ValueError("canary")

        lanes._make = make
        other = a_section("apns:two", NOBODY)
        error = self.assertRaises(
            ConfigError, lanes.prepare, self.config(a_section(connections=2), other)
        )
        self.assertEqual(error.problems, ["[apns]: unusable (ValueError)"])
        self.assertEqual((len(lanes.all), len(self.servers)), (1, 1))

    def test_the_real_ones(self) -> None:
        """What TLS does not take is found while preparing, whoever is to be reached how."""
        plain, reactor = a_section(), MemoryReactorClock()
        made = outfit(plain, reactor, None)
        self.assertEqual((made.provider.name, made.token), ("apns", None))
        through = outfit(replace(plain, proxy=Proxy("p", 1)), reactor, made)
        self.assertIsNot(through.pool, made.pool)
        broken = replace(plain, ca_pem=b"-----BEGIN CERTIFICATE-----\nAA==\n")
        self.assertRaises(crypto.Error, outfit, broken, reactor, made)
