"""SIGHUP, without a process: what is read, what is applied, and what an operator is told."""

from dataclasses import replace

from bouncerd.config import Config, ConfigError
from bouncerd.lanes import Lanes
from bouncerd.reloading import Reloader
from bouncerd.settings import E2ee
from tests.memory import APP
from tests.test_lanes import LanesCase, a_section


class ReloadingTests(LanesCase):
    """A reloader whose file is whatever `self.read` says."""

    def setUp(self) -> None:
        super().setUp()
        self.file: Config | Exception = self.config(a_section())
        self.applied: list[Config] = []
        self.order: list[str] = []

    def reloader(self) -> tuple[Reloader, Lanes]:
        """Build it, for the file as it is."""
        assert isinstance(self.file, Config)
        lanes = self.lanes(*self.file.apns)
        reloader = Reloader(self.file, self.read, lanes, [self.applied.append], self.clock)
        reloader.begins = lambda: self.order.append("begins")
        reloader.ends = lambda: self.order.append("ends")
        return reloader, lanes

    def read(self) -> Config:
        """Stand for config.read."""
        self.order.append("read")
        if isinstance(self.file, Exception):
            raise self.file
        return self.file

    def lines(self) -> list[str]:
        """Return what the log says of reloads, with its facts."""
        return [
            str(event["log_format"]).format(**event)
            for event in self.events
            if str(event["log_namespace"]).endswith("reloading") and "log_failure" not in event
        ]

    def ask(self, reloader: Reloader, times: int = 1) -> None:
        """Send signals."""
        for _ in range(times):
            reloader.ask()
        self.clock.advance(0)

    def test_signals_coalesce(self) -> None:
        """Two signals in a row are one reload, and systemd hears of its begin and its end."""
        reloader, _ = self.reloader()
        self.ask(reloader, 2)
        self.assertEqual(self.order, ["begins", "read", "ends"])
        self.ask(reloader)
        self.assertEqual(self.order, ["begins", "read", "ends"] * 2)
        self.assertEqual(self.lines(), ["Reloaded: nothing has changed"] * 2)

    def test_mistakes_change_nothing(self) -> None:
        """Each mistake is a line, there is one alert, and nobody is told of the new file."""
        reloader, lanes = self.reloader()
        self.file = ConfigError(["FILE: [apns] one", "FILE: [fcm] two"])
        self.ask(reloader)
        self.assertEqual((self.applied, len(lanes.all)), ([], 1))
        self.assertEqual(
            self.lines(),
            [
                "Not reloaded: FILE: [apns] one",
                "Not reloaded: FILE: [fcm] two",
                "The old configuration goes on, the new one has mistakes: 2",
            ],
        )
        alerts = [event["alert"] for event in self.events if "alert" in event]
        self.assertEqual((alerts, self.order[-1]), (["reload-failed"], "ends"))

    def test_a_bug_changes_nothing(self) -> None:
        """Whatever goes wrong while reading, the daemon goes on and the operator hears of it."""
        reloader, _ = self.reloader()
        self.file = RuntimeError("canary")
        self.ask(reloader)
        self.assertEqual((self.applied, self.order[-1]), ([], "ends"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.file = self.config(a_section(), a_section("apns:two", APP))
        self.ask(reloader)
        self.assertEqual(self.lines(), ["Reloaded: [apns:two] is new"])

    def test_what_changed_is_told(self) -> None:
        """An operator reads which sections are used anew; nothing of what is in them."""
        reloader, lanes = self.reloader()
        config = self.config(a_section(connections=2))
        self.file = replace(
            config,
            bouncerd=replace(config.bouncerd, support="x", listen=("tcp:1",), answer_within=3.0),
            limits=replace(config.limits, queue=7),
            e2ee=E2ee((b"k" * 32,)),
            warnings=("something odd",),
        )
        self.ask(reloader)
        self.assertEqual(
            self.lines(),
            [
                f"{config.path}: warning: something odd",
                "Reloaded: [bouncerd], [limits], [e2ee], [apns]",
                "Changed in [bouncerd], but needs a restart: listen, answer_within",
            ],
        )
        in_force = self.applied[0].bouncerd
        self.assertEqual((in_force.support, in_force.answer_within), ("x", 12.0))
        self.assertEqual(self.applied[0].limits.queue, 7)
        self.ask(reloader)
        self.assertEqual(
            self.lines()[3:],
            [
                "Reloaded: nothing has changed",
                "Changed in [bouncerd], but needs a restart: listen, answer_within",
            ],
        )
        self.file = self.config()
        self.ask(reloader)
        self.assertIn("[apns] is gone", self.lines()[-1])
        self.assertEqual(len(lanes.all), 0)

    def test_copies_of_systemd(self) -> None:
        """Where files are systemd's copies, a reload that changes nothing says why."""
        reloader, _ = self.reloader()
        copies = ("[apns] key_file", "[e2ee] private_keys")
        unchanged = "Unchanged, because systemd copies LoadCredential= files only at start"
        self.file = replace(self.config(a_section(connections=2)), copies=copies)
        self.ask(reloader)
        self.assertEqual(
            self.lines(),
            [
                "Reloaded: [apns]",
                f"{unchanged} (after changing them, restart instead): [e2ee] private_keys",
            ],
        )

    def test_while_the_process_stops(self) -> None:
        """A signal during the stop does nothing, nor does one that came just before."""
        reloader, lanes = self.reloader()
        self.down = True
        self.file = self.config(a_section(connections=2))
        self.ask(reloader)
        reloader.ask()
        reloader.stop()
        self.ask(reloader)
        self.assertEqual(self.order.count("read"), 1)
        for lane in lanes.all:
            lane.stop(1.0)
            lane.pool.stop()
        self.pass_seconds(15)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_long_list(self) -> None:
        """More than fits into a line is cut."""
        reloader, _ = self.reloader()
        self.file = self.config(*(a_section(f"apns:{n}", f"org.x{n}") for n in range(40)))
        self.ask(reloader)
        (line,) = self.lines()
        self.assertTrue(line.endswith("..."))
        self.assertLess(len(line), 200)
