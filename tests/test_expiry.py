"""How long certificates are good, and when an operator is told."""

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.config import ApnsSection, Config, read
from bouncerd.credentials import ClientCertificate, ends_of
from bouncerd.expiry import Expiry
from bouncerd.fakes.credentials import make
from tests.places import a_directory

DAY = 86_400.0
NOW = 1_800_000_000.0


class ExpiryTests(SynchronousTestCase):
    """Certificates and a clock that runs for months."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.expiry = Expiry(self.clock, lambda: NOW + self.clock.seconds() - 1000.0)
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        path = a_directory(self) / "bouncer.ini"
        path.write_text("[bouncerd]\n")
        self.plain = read(path, environ={}, now=NOW)

    def config(self, days: float | None, ca_pem: bytes | None = None) -> Config:
        """Return a configuration whose certificate is good for so many days from the start."""
        shown = None
        if days is not None:
            shown = ClientCertificate(b"", b"", NOW + days * DAY)
        section = ApnsSection("apns", None, "h", 443, "production", None, shown, ca_pem, 1)
        return replace(self.plain, apns=(section,))

    def said(self) -> list[str]:
        """Return the alerts, as they are sent to the operator."""
        return [
            f"{event['subject']}: {event['reason']}"
            for event in self.events
            if event.get("alert") == "certificate-expiry"
        ]

    def pass_days(self, days: int) -> None:
        """Let time pass."""
        self.clock.pump([3600.0] * (24 * days))

    def test_once_for_each_stretch(self) -> None:
        """It is said 30, 14, 7 and 1 day ahead and when it is over, once each."""
        self.expiry.watch(self.config(40.5))
        self.expiry.start()
        self.pass_days(10)
        self.assertEqual(self.said(), [])
        self.pass_days(1)
        self.assertEqual(self.said(), ["apns: certificate expires on 2027-02-24, in 30 days"])
        self.pass_days(15)
        self.assertEqual(len(self.said()), 1)
        self.pass_days(30)
        self.assertEqual(
            [line.rpartition(", in ")[2] for line in self.said()],
            [
                "30 days",
                "14 days",
                "7 days",
                "1 day",
                "apns: certificate has expired on 2027-02-24",
            ],
        )
        self.assertEqual(
            [event["log_level"].name for event in self.events],
            ["warn", "warn", "error", "error", "error"],
        )

    def test_at_the_start(self) -> None:
        """A start says at once what is near; a reload says it again, but not every minute."""
        self.expiry.watch(self.config(5))
        self.assertEqual(self.said(), [])
        self.expiry.start()
        self.assertEqual(len(self.said()), 1)
        self.expiry.watch(self.config(5))
        self.assertEqual(len(self.said()), 1)
        self.clock.advance(700)
        self.expiry.watch(self.config(5))
        self.assertEqual(len(self.said()), 2)
        self.expiry.watch(self.config(4))
        self.assertEqual(len(self.said()), 3)
        self.expiry.watch(self.config(400))
        self.pass_days(30)
        self.assertEqual(len(self.said()), 3)

    def test_a_clock_that_was_wrong(self) -> None:
        """What a wrong clock made us say is no reason to be silent when it comes true."""
        ahead = 300 * DAY
        expiry = Expiry(self.clock, lambda: NOW + ahead + self.clock.seconds() - 1000.0)
        expiry.watch(self.config(40.5))
        expiry.start()
        self.assertEqual(len(self.said()), 1)
        ahead = 0.0
        self.pass_days(20)
        self.assertEqual([line[-7:] for line in self.said()[1:]], ["30 days"])
        expiry.stop()

    def test_for_metrics(self) -> None:
        """What a graph shows is the seconds that are left, of what we show Apple."""
        self.assertEqual(self.expiry.left(), {})
        self.expiry.watch(self.config(2))
        self.pass_days(3)
        self.assertEqual(self.expiry.left(), {"apns": -DAY})
        self.expiry.watch(self.config(None))
        self.assertEqual(self.expiry.left(), {})
        self.expiry.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_roots(self) -> None:
        """A ca_file is looked after, too: without its root there is no connection."""
        directory = a_directory(self)
        pem = make(directory).ca_file.read_bytes()
        (end,) = ends_of(pem)
        expiry = Expiry(self.clock, lambda: end - 5 * DAY)
        expiry.watch(self.config(None, pem))
        expiry.start()
        (line,) = self.said()
        self.assertTrue(line.startswith("apns: ca_file expires on 20"), line)
        self.assertEqual(expiry.left(), {})
