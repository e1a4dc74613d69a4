"""The log: what is in a line, and what is never in one."""

import ast
import gc
import io
import json
import logging
import string
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Application
from twisted.internet.defer import Deferred, fail
from twisted.logger import (
    ILogObserver,
    LogBeginner,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import credentials, logs, redaction
from bouncerd.ini import Section
from bouncerd.model import Kind

CANARY = "swordfish"
PACKAGE = Path(logs.__file__).parent


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an error as it is after it was raised, here."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def raised_within() -> BaseException:
    """Return an error that passed through bouncerd's own code on its way here."""
    section = Section("x", {"key": "9" * 20}, {"key": CANARY})
    try:
        section.whole("key", 0, 1)
    except ValueError as caught:  # the default is not a number either, and int() says so
        return caught
    raise AssertionError("the default cannot be a number")


class LoggedCase(SynchronousTestCase):
    """An observer, and the lines that it wrote."""

    def setUp(self) -> None:
        self.output = io.StringIO()
        self.observer = logs.observer(self.output)
        self.publisher = LogPublisher(self.observer)

    def logger(self, namespace: str = "bouncerd.pool") -> Logger:
        return Logger(namespace=namespace, observer=self.publisher)

    def lines(self) -> list[str]:
        lines = self.output.getvalue().splitlines()
        self.output.seek(0)
        self.output.truncate()
        return lines

    def only(self) -> dict[str, Any]:
        """Return the one record that was written, parsed."""
        (line,) = self.lines()
        return cast("dict[str, Any]", json.loads(line))


class OurEventsTests(LoggedCase):
    """Events of bouncerd's own modules."""

    def test_facts(self) -> None:
        """An event is one JSON object: when, how loud, who, what, and its facts."""
        self.logger().warn("Provider {provider}: {count} waiting", provider="apns", count=3)
        record = self.only()
        self.assertRegex(record.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            record,
            {
                "level": "warn",
                "module": "bouncerd.pool",
                "message": "Provider apns: 3 waiting",
                "provider": "apns",
                "count": 3,
            },
        )

    def test_unknown_fields(self) -> None:
        """A field outside of the vocabulary is left out, and withheld in the text."""
        self.logger().info("Sent {body} {} {0} {push.token}", body=CANARY, push=CANARY)
        record = self.only()
        self.assertEqual(record["message"], "Sent " + " ".join([redaction.WITHHELD] * 4))
        self.assertNotIn(CANARY, json.dumps(record))

    def test_form_of_facts(self) -> None:
        """A known field takes only its own form: numbers, one word, or a few words."""
        planted: list[tuple[str, object]] = [
            ("count", CANARY),
            ("provider", f"two {CANARY}"),
            ("provider", [CANARY]),
            ("reason", {"a": CANARY}),
            ("reason", f"line\n{CANARY}"),
            ("path", f"{CANARY}\u2028"),
            ("reason", f"{CANARY} " * 30),
            ("server", CANARY.encode()),
            ("where", CANARY),
            ("error", CANARY),
            ("message", CANARY),
            ("log_text", CANARY),
        ]
        for name, value in planted:
            self.logger().info("Fact {fact}", **{name: value, "fact": CANARY})
            self.assertNotIn(CANARY, "".join(self.lines()), name)

    def test_kinds_of_values(self) -> None:
        """Numbers, enumerations, paths and nothing at all are facts; a text's form is kept."""
        facts = {"kind": Kind.APNS, "path": Path("/a b"), "seconds": 1.25, "server": None}
        self.logger().info("{kind} {path} {seconds:.1f} {server:>3.1z}", **facts)
        record = self.only()
        self.assertEqual(record["message"], "APNS /a b 1.2 None")
        self.assertEqual((record["kind"], record["seconds"]), ("APNS", 1.25))

    def test_broken_format(self) -> None:
        """A text that cannot be filled in is written as it is."""
        self.logger().info("a {brace")
        self.assertEqual(self.only()["message"], "a {brace")

    def test_level(self) -> None:
        """What is quieter than the level is not written; the level may change."""
        self.logger().debug("quiet")
        self.assertEqual(self.lines(), [])
        self.observer.level = LogLevel.debug
        self.logger().debug("quiet")
        self.assertEqual(self.only()["level"], "debug")

    def test_for_people(self) -> None:
        """On a terminal a line has the time of day, the level, who, what, and an error's place."""
        observer = logs.observer(self.output, human=True)
        log = Logger(namespace="bouncerd.pool", observer=observer)
        log.info("Provider {provider} is up", provider="apns")
        log.failure("Broken", Failure(raised_within()))
        first, second = self.lines()
        self.assertRegex(first, r"^\d\d:\d\d:\d\d info     bouncerd.pool: Provider apns is up$")
        self.assertRegex(
            second, r"critical bouncerd.pool: Broken ValueError … bouncerd/ini.py:\d+$"
        )

    def test_terminal(self) -> None:
        """Lines are for people where people look, and JSON elsewhere."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        Logger(namespace="bouncerd", observer=logs.observer(terminal)).info("up")
        self.assertIn("info     bouncerd: up\n", terminal.getvalue())

    def test_output_that_fails(self) -> None:
        """A full disk or a closed stream stops nothing."""
        self.output.close()
        self.logger().info("lost")


class ExceptionTests(LoggedCase):
    """Exceptions: their class and our lines; never what they say."""

    def assert_silent(self, *errors: str) -> None:
        """Assert that one line a class was written, and the canary in none."""
        lines = self.lines()
        self.assertNotIn(CANARY, "\n".join(lines))
        self.assertEqual([json.loads(line)["error"] for line in lines], list(errors))

    def test_failure(self) -> None:
        """A failure is its class and where it passed through our code."""
        self.assertIn(CANARY, str(raised_within()))
        self.logger().failure("Broken", Failure(raised_within()))
        record = self.only()
        self.assertEqual(record["error"], "ValueError")
        self.assertRegex(record["where"], r"^… bouncerd/ini\.py:\d+$")
        self.assertNotIn(CANARY, json.dumps(record))

    def test_foreign_frames(self) -> None:
        """Code of others collapses, at the end of the way too."""
        try:
            credentials.service_account(cast("bytes", object()))
        except TypeError:
            self.logger().failure("Broken")
        record = self.only()
        self.assertRegex(record["where"], r"^… (bouncerd/credentials\.py:\d+ ){2}…$")

    def test_arguments(self) -> None:
        """What everyday errors say holds the value: none of it is written."""
        errors = [
            ValueError(CANARY),
            KeyError(CANARY),
            UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
            OSError(2, CANARY, CANARY),
            ExceptionGroup(CANARY, [ValueError(CANARY)]),
            type(CANARY * 40, (Exception,), {})(CANARY),
        ]
        for error in errors:
            self.logger().failure("Broken", Failure(raised(error)))
        self.assert_silent(
            "ValueError",
            "KeyError",
            "UnicodeDecodeError",
            "FileNotFoundError",
            "ExceptionGroup",
            redaction.WITHHELD,
        )

    def test_chain(self) -> None:
        """The causes of an exception are told like itself."""
        self.logger().failure("Broken", Failure(raised(KeyError(CANARY), raised_within())))
        line = self.output.getvalue()
        self.assertNotIn(CANARY, line)
        record = self.only()
        self.assertEqual(record["error"], "KeyError")
        self.assertRegex(record["caused_by"][0], r"^ValueError … bouncerd/ini\.py:\d+$")

    def test_circular_chain(self) -> None:
        """Causes that go round in a circle end."""
        one, two = ValueError(CANARY), KeyError(CANARY)
        one.__cause__, two.__cause__ = two, one
        self.logger().failure("Broken", Failure(one))
        self.assertEqual(len(self.only()["caused_by"]), 4)

    def test_without_traceback(self) -> None:
        """A failure that was never raised, or was cleaned, still has its class."""
        failure = Failure(raised_within())
        failure.cleanFailure()
        self.logger().failure("Broken", failure)
        self.logger().failure("Broken", Failure(ValueError(CANARY)))
        self.assert_silent("ValueError", "ValueError")

    def test_locals(self) -> None:
        """A failure that captured variables gives none of them away."""
        secret = CANARY
        try:
            raise ValueError(secret)
        except ValueError:
            failure = Failure(captureVars=True)
        self.logger("twisted.web.server").failure("", failure)
        self.assert_silent("ValueError")

    def test_unhandled(self) -> None:
        """An error that nobody handled is told, without what it says."""
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)
        deferred: Deferred[None] = fail(raised(ValueError(CANARY)))
        del deferred
        gc.collect()
        said, told = (json.loads(line) for line in self.lines())
        self.assertEqual(said["message"], "an error that nobody handled")
        self.assertEqual((told["error"], told["module"]), ("ValueError", "twisted.internet.defer"))
        self.assertNotIn(CANARY, json.dumps([said, told]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class OthersEventsTests(LoggedCase):
    """Events of Twisted, Klein and other libraries."""

    def test_text_is_withheld(self) -> None:
        """Of a foreign event, who and how loud is written; neither its text nor its fields."""
        self.logger("klein._app").error("A {text} " + CANARY, text=CANARY, provider=CANARY)
        record = self.only()
        self.assertEqual((record["module"], record["level"]), ("klein._app", "error"))
        self.assertNotIn(CANARY, json.dumps(record))

    def test_chatter(self) -> None:
        """A foreign event that is neither known nor loud would say nothing: no line."""
        self.logger("twisted.web.http").info("GET /" + CANARY)
        self.logger("stdout").info("{log_io}", log_io=CANARY)
        self.assertEqual(self.lines(), [])

    def test_known_texts(self) -> None:
        """What is known to be constant is written."""
        log = self.logger("twisted.internet.base")
        log.info("Received SIGTERM, shutting down.")
        self.assertEqual(self.only()["message"], "received SIGTERM, stopping")
        log.info("Timing out client: {peer}", peer=CANARY)
        self.assertEqual(self.only()["message"], "a caller was too slow")
        log.info(
            "twistd {version} ({exe} {pyVersion}) starting up.",
            version="26.10.0",
            exe=CANARY,
            pyVersion=CANARY,
        )
        self.assertEqual(self.only()["message"], "twistd 26.10.0 starts")

    def test_namespaces(self) -> None:
        """Only our own modules are ours; a name that is no name is not written."""
        for namespace in ("bouncerdx", "x.bouncerd", f"a {CANARY}"):
            self.logger(namespace).error("{reason}", reason=CANARY)
            self.assertNotIn(CANARY, "".join(self.lines()))

    def test_legacy_events(self) -> None:
        """twisted.python.log's messages and errors are treated as foreign."""
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)
        legacy.msg(CANARY)
        legacy.msg(format="%(a)s", a=CANARY, isError=True)
        legacy.err(raised(ValueError(CANARY)), CANARY)
        first, second = (json.loads(line) for line in self.lines())
        self.assertEqual((first["module"], first["level"]), ("log_legacy", "critical"))
        self.assertEqual(second["error"], "ValueError")
        self.assertNotIn(CANARY, json.dumps([first, second]))
        self.flushLoggedErrors()

    def test_malformed_events(self) -> None:
        """Events without the usual fields break nothing."""
        for event in ({}, {"log_namespace": 7, "log_format": 8, "log_level": LogLevel.error}):
            self.observer(event)
        self.assertEqual(self.only()["module"], "?")

    def test_twisted_takes_over(self) -> None:
        """What Twisted itself redirects at the start, prints and warnings, is withheld too."""

        class Streams:
            stdout = io.StringIO()
            stderr = io.StringIO()

        class Warnings:
            showwarning: Callable[..., None] = warnings.showwarning

        streams, python = Streams(), Warnings()
        publisher = LogPublisher()
        LogBeginner(publisher, io.StringIO(), streams, python).beginLoggingTo([self.observer])
        print(CANARY, file=streams.stderr)
        python.showwarning(UserWarning(CANARY), UserWarning, f"/{CANARY}.py", 3)
        python.showwarning(UserWarning(CANARY), UserWarning, logs.__file__, 3)
        said, foreign, ours = (json.loads(line) for line in self.lines())
        self.assertEqual((said["module"], said["level"]), ("stderr", "error"))
        self.assertEqual((foreign["message"], foreign["where"]), ("a Python warning", "…"))
        self.assertEqual(ours["where"], "bouncerd/logs.py:3")
        self.assertIn("UserWarning", ours["error"])
        self.assertNotIn(CANARY, json.dumps([said, foreign, ours]))


class CaptureTests(LoggedCase):
    """What bypasses Twisted's logging."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(logs.capture(self.observer))

    def test_logging(self) -> None:
        """Python's logging: who and how loud, and an exception's class."""
        log = logging.getLogger("some.library")
        log.warning("text %s", CANARY)
        record = self.only()
        self.assertEqual((record["module"], record["level"]), ("(some.library)", "warn"))
        log.error("%d", CANARY)  # Python would print the arguments that do not fit
        self.assertEqual(self.only()["level"], "error")
        try:
            raise ValueError(CANARY)
        except ValueError:
            log.exception(CANARY)
        self.assertEqual(self.only()["error"], "ValueError")
        log.critical(CANARY)
        self.assertNotIn(CANARY, "".join(self.lines()))

    def test_named_like_us(self) -> None:
        """A logger of Python's that is called like a module of ours is foreign all the same."""
        logging.getLogger("bouncerd.pool").error(CANARY)
        self.assertNotIn(CANARY, "".join(self.lines()))

    def test_warnings(self) -> None:
        """A warning is its class, and its place if that is ours."""
        self.addCleanup(logs.capture(self.observer))  # trial has put its own in place since
        warnings.showwarning(UserWarning(CANARY), UserWarning, logs.__file__, 7)
        record = self.only()
        self.assertEqual((record["error"], record["where"]), ("UserWarning", "bouncerd/logs.py:7"))
        self.assertNotIn(CANARY, json.dumps(record))

    def test_uncaught(self) -> None:
        """An exception that ends the process is its class and place."""
        error = raised_within()
        sys.excepthook(type(error), error, error.__traceback__)
        record = self.only()
        self.assertEqual((record["level"], record["error"]), ("critical", "ValueError"))
        self.assertNotIn(CANARY, json.dumps(record))

    def test_uncaught_in_threads(self) -> None:
        """So is one that ends a thread."""

        def work() -> None:
            raise ValueError(CANARY)

        thread = threading.Thread(target=work, name=CANARY)
        thread.start()
        thread.join()
        record = self.only()
        self.assertEqual(record["error"], "ValueError")
        self.assertNotIn(CANARY, json.dumps(record))

    def test_unraisable(self) -> None:
        """So is one that Python can only ignore, such as in a finaliser."""

        class Finalised:
            def __del__(self) -> None:
                raise ValueError(CANARY)

            def __repr__(self) -> str:
                return CANARY

        Finalised()
        gc.collect()
        record = self.only()
        self.assertEqual(record["error"], "ValueError")
        self.assertNotIn(CANARY, json.dumps(record))

    def test_undone(self) -> None:
        """Whoever captured can let go again."""
        before = (sys.excepthook, warnings.showwarning, logging.getLogger().handlers[:])
        logs.capture(self.observer)()
        after = (sys.excepthook, warnings.showwarning, logging.getLogger().handlers[:])
        self.assertEqual(after, before)


class AttachTests(LoggedCase):
    """How twistd comes to log through us."""

    def test_component(self) -> None:
        """twistd asks the application for its observer, and gets ours."""
        hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning)
        handlers = logging.getLogger().handlers[:]
        application = Application("bouncerd")
        attached = logs.attach(application, self.output)
        try:
            self.assertIs(application.getComponent(ILogObserver), attached)
            self.assertTrue(ILogObserver.providedBy(attached))
            self.assertIsNot(sys.excepthook, hooks[0])
        finally:
            sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = hooks
            logging.getLogger().handlers[:] = handlers
            logging.raiseExceptions = True

    def test_destinations(self) -> None:
        """twistd's own options choose: in the foreground standard error, else a file."""
        self.assertIsNone(logs.destination({"nodaemon": 1, "logfile": None}))
        self.assertIsNone(logs.destination({"nodaemon": 1, "logfile": "-"}))
        self.assertIsNone(logs.destination({}))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "b.log"
            output = logs.destination({"nodaemon": 0, "logfile": str(path)})
            Logger(namespace="bouncerd", observer=logs.observer(output)).info("up")
            cast("Any", output).close()
            self.assertEqual(json.loads(path.read_text())["message"], "up")
            self.assertEqual(path.stat().st_mode & 0o777, 0o640)

    def test_standard_error(self) -> None:
        """Standard error is the one of the start, not what Twisted puts in its place later."""
        before, sys.stderr = sys.stderr, self.output
        try:
            observer = logs.observer()
        finally:
            sys.stderr = before
        Logger(namespace="bouncerd", observer=observer).info("up")
        self.assertEqual(self.only()["message"], "up")


class ShortHashTests(SynchronousTestCase):
    """What tokens and keys are called in logs."""

    def test_short_hash(self) -> None:
        """The same secret has the same name under one key, and another under another."""
        key = bytes(range(32))
        name = logs.short_hash(key, CANARY)
        self.assertRegex(name, r"^[0-9a-f]{12}$")
        self.assertEqual(name, logs.short_hash(key, CANARY))
        self.assertNotEqual(name, logs.short_hash(bytes(32), CANARY))
        self.assertNotEqual(name, logs.short_hash(key, CANARY + "x"))


class OurCallsTests(SynchronousTestCase):
    """Every place in the code that logs."""

    METHODS = frozenset({"debug", "info", "warn", "error", "critical", "failure", "emit"})

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        for path in sorted(PACKAGE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in self.METHODS
                    and ast.unparse(node.func.value).lstrip("_").removeprefix("self._") == "log"
                ):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node

    def test_constant_texts(self) -> None:
        """A log call has a constant text, and facts only from the vocabulary."""
        for place, call in self.calls():
            method = cast("ast.Attribute", call.func).attr
            texts = call.args[1:] if method == "emit" else call.args
            self.assertTrue(texts and isinstance(texts[0], ast.Constant), f"{place}: its text")
            text = cast("str", cast("ast.Constant", texts[0]).value)
            given = {keyword.arg for keyword in call.keywords} - {"failure"}
            needed = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            self.assertEqual(given - redaction.VOCABULARY.keys(), set(), f"{place}: unknown facts")
            self.assertEqual(needed - given, set(), f"{place}: in the text, but not given")
