"""Alerts: which events are one, what a command is told, and that it can do no harm."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock, deferLater
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from bouncerd.alerts import AN_HOUR, WAITING, WITHIN, Alerts, spawner
from bouncerd.redaction import ALERTS
from tests.observed import Programs

reactor: Any = _reactor
CANARY = "swordfish"
COMMAND = ("/usr/local/bin/notify", "--channel", "ops now")


class AlertCase(SynchronousTestCase):
    """An observer of alerts, and the programs that it starts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.programs = Programs()
        self.alerts = Alerts(self.clock, self.programs.spawn, COMMAND)
        self.log = Logger(namespace="bouncerd.caution", observer=self.alerts)

    def refuse(self, provider: str = "apns", reason: str = "InvalidProviderToken") -> None:
        """Log an alert as others do."""
        self.log.error(
            "Provider {provider} refuses our credential: {reason}",
            provider=provider,
            reason=reason,
            alert="credential-refused",
        )
        self.clock.advance(0)

    @property
    def told(self) -> list[list[str]]:
        """What the programs were told."""
        return [each.arguments[len(COMMAND) :] for each in self.programs.started]

    def end(self, reason: Exception | None = None) -> None:
        """End the latest program."""
        self.programs.started[-1].end(reason or ProcessDone(0))
        self.clock.advance(0)


class EventTests(AlertCase):
    """What becomes an alert."""

    def test_told(self) -> None:
        """A command gets the alert, its subject and its reason after its own arguments."""
        self.refuse()
        (program,) = self.programs.started
        self.assertEqual(tuple(program.arguments[:3]), COMMAND)
        self.assertEqual(self.told, [["credential-refused", "apns", "InvalidProviderToken"]])
        self.assertEqual(self.alerts.counts["credential-refused"], 1)

    def test_subjects(self) -> None:
        """The subject is what the event is about; without a reason its own text is told."""
        self.log.error("Lane {lane} is full", lane="fcm:x", alert="lane-shedding")
        self.clock.advance(0)
        self.end()
        self.log.error("A reload failed", alert="reload-failed")
        self.clock.advance(0)
        self.assertEqual(
            self.told,
            [
                ["lane-shedding", "fcm:x", "Lane fcm:x is full"],
                ["reload-failed", "", "A reload failed"],
            ],
        )

    def test_cleared(self) -> None:
        """That it is over is told as that, and is no alert of its own."""
        self.log.info("Works again", alert="store-down", subject="store", cleared=True)
        self.clock.advance(0)
        self.assertEqual(self.told, [["store-down:cleared", "store", "Works again"]])
        self.assertEqual(self.alerts.counts["store-down"], 0)

    def test_others_events(self) -> None:
        """Only our own events of a known kind are alerts, whatever fields others invent."""
        self.log.error("plain {reason}", reason="x")
        self.log.error("x", alert=CANARY)
        self.log.error("x", alert=["credential-refused"])
        Logger(namespace="klein", observer=self.alerts).error("x", alert="store-down")
        self.clock.advance(0)
        self.assertEqual((self.programs.started, sum(self.alerts.counts.values())), ([], 0))

    def test_no_content(self) -> None:
        """What has not the form of a fact is withheld from a command, as it is from the log."""
        self.refuse(provider=f"a {CANARY}", reason=f"{CANARY}\n")
        self.assertEqual(self.told, [["credential-refused", "(withheld)", "(withheld)"]])

    def test_without_a_command(self) -> None:
        """Without a command alerts are counted all the same."""
        self.alerts.command = ()
        self.refuse()
        self.assertEqual(self.programs.started, [])
        self.assertEqual(self.alerts.counts["credential-refused"], 1)

    def test_every_kind(self) -> None:
        """Each kind on the list can be raised, and has its count from the start."""
        self.assertEqual(dict(self.alerts.counts), dict.fromkeys(ALERTS, 0))
        for kind in ALERTS:
            self.log.error("x", alert=kind)
        self.assertEqual(dict(self.alerts.counts), dict.fromkeys(ALERTS, 1))


class CommandTests(AlertCase):
    """What a command may take."""

    def test_one_at_a_time(self) -> None:
        """The next one starts when the one before has ended."""
        self.refuse("apns")
        self.refuse("fcm")
        self.assertEqual(len(self.told), 1)
        self.end()
        self.assertEqual([told[1] for told in self.told], ["apns", "fcm"])
        self.end()
        self.assertEqual(self.alerts.results["done"], 2)

    def test_at_the_end(self) -> None:
        """The process waits for what is told of its end, and not for long; else not at all."""
        self.successResultOf(self.alerts.finished(5.0))
        self.refuse("apns")
        self.refuse("fcm")
        finished = self.alerts.finished(5.0)
        self.end()
        self.assertNoResult(finished)
        self.end()
        self.successResultOf(finished)
        self.assertEqual(self.told[1][1], "fcm")
        self.refuse()
        finished = self.alerts.finished(5.0)
        self.clock.advance(5.0)
        self.successResultOf(finished)

    def test_time_limit(self) -> None:
        """One that does not end is ended, and the next one starts."""
        self.refuse()
        self.refuse("fcm")
        self.clock.advance(WITHIN)
        (program,) = self.programs.started
        self.assertEqual(program.signals, ["KILL"])
        self.end(ProcessTerminated(signal=9))
        self.assertEqual((self.alerts.results["failed"], len(self.told)), (1, 2))

    def test_rate(self) -> None:
        """So many start in an hour; what is more is dropped and counted, and later ones start."""
        for _ in range(AN_HOUR + 3):
            self.refuse()
            if len(self.programs.started) <= AN_HOUR and self.alerts.results["dropped"] == 0:
                self.end()
        self.assertEqual((len(self.told), self.alerts.results["dropped"]), (AN_HOUR, 3))
        self.clock.advance(3600)
        self.refuse()
        self.assertEqual(len(self.told), AN_HOUR + 1)

    def test_queue(self) -> None:
        """So many wait; what is more is dropped and counted."""
        for _ in range(WAITING + 3):
            self.refuse()
        self.assertEqual((len(self.told), self.alerts.results["dropped"]), (1, 2))

    def test_not_within_the_log_call(self) -> None:
        """Nothing is started while somebody logs."""
        self.log.error("x", alert="store-down")
        self.assertEqual(self.programs.started, [])

    def test_failure_is_told_once(self) -> None:
        """A command that fails is one line until it has worked again."""
        lines = self.lines()
        self.refuse()
        self.end(ProcessTerminated(3))
        self.refuse()
        self.end(ProcessTerminated(3))
        self.assertEqual(len(lines), 1)
        self.assertIn("exit status 3", str(lines[0]["reason"]))
        self.refuse()
        self.end()
        self.refuse()
        self.end(ProcessTerminated(None, 11))
        self.assertEqual([line["reason"] for line in lines[1:]], ["killed by a signal"])

    def test_cannot_be_started(self) -> None:
        """A program that is not there is a failure like any other; its words are not repeated."""
        lines = self.lines()
        self.programs.fails = True
        self.refuse()
        self.assertEqual([line["reason"] for line in lines], ["FileNotFoundError"])
        self.programs.fails = False
        self.refuse()
        self.assertEqual(len(self.told), 1)

    def test_another_command(self) -> None:
        """A reload changes it; what runs goes on."""
        self.refuse()
        self.alerts.command = ("/bin/other",)
        self.end()
        self.refuse()
        self.assertEqual(self.programs.started[-1].arguments[0], "/bin/other")

    def lines(self) -> list[dict[str, object]]:
        """Return what is logged of commands, as it comes."""
        lines: list[dict[str, object]] = []

        @implementer(ILogObserver)
        def hear(event: LogEvent) -> None:
            if event.get("log_namespace") == "bouncerd.alerts":
                lines.append(event)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)
        return lines


def ask(directory: Path, words: str) -> Alerts:
    """Run a real program for one alert."""
    script = directory / "notify.py"
    script.write_text(f"import json, os, sys, time\n{words}\n")
    environ = {"PATH": os.environ["PATH"], "SECRET": CANARY}
    alerts = Alerts(reactor, spawner(reactor, environ), (sys.executable, "-I", str(script)))
    log = Logger(namespace="bouncerd.caution", observer=alerts)
    log.error("x", alert="store-down", subject="store", reason="it's; `gone` $HOME")
    return alerts


async def ended(alerts: Alerts) -> None:
    """Wait for a result."""
    for _ in range(2000):
        if sum(alerts.results.values()):
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("the command did not end")


@pytest_twisted.ensureDeferred
async def test_a_real_program(tmp_path: Path) -> None:
    """It gets its words as they are, no shell between, and nothing of our environment."""
    out = tmp_path / "out"
    words = (
        "print('x' * 1000000)\n"
        "fds = sorted(os.listdir('/proc/self/fd'))\n"
        "told = [sys.argv[1:], sorted(os.environ), os.getcwd(), len(fds)]\n"
        f"open({str(out)!r}, 'w').write(json.dumps(told))"
    )
    alerts = ask(tmp_path, words)
    await ended(alerts)
    assert alerts.results["done"] == 1, alerts.results
    text = out.read_text()
    assert '["store-down", "store", "it\'s; `gone` $HOME"]' in text
    assert CANARY not in text
    assert '["LANG", "LC_CTYPE", "PATH"]' in text or '["LANG", "PATH"]' in text, text
    assert '"/"' in text
    # Standard input, output and error, and the directory that is being listed.
    assert text.endswith(", 4]"), text


@pytest_twisted.ensureDeferred
async def test_a_real_program_that_fails(tmp_path: Path) -> None:
    """Its exit status is seen."""
    alerts = ask(tmp_path, "sys.exit(3)")
    await ended(alerts)
    assert alerts.results["failed"] == 1
