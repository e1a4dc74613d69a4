"""Servers come, change, leave, and come back."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.basicauth import digest
from bouncerd.enrolment import Enrolment
from bouncerd.envelope import WireError
from bouncerd.model import Server
from bouncerd.registry import (
    Admission,
    HostnameTaken,
    PlanActive,
    UnknownServer,
    has_binding_plan,
)
from bouncerd.store.sqlite import SQLiteStore
from tests.in_memory import KEY, NOW, ORG_ID, Daemon, result

OTHER_ID = "9aa61d0b-8ce5-488d-8e9e-fedc346e6836"


class HastyStore(SQLiteStore):
    """A store that knows no server at first: the other call is not through yet."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(None, None, now)
        self._asked = 0

    def server(self, uuid: str) -> Deferred[Server | None]:
        self._asked += 1
        # The first question is the fixture's own.
        return succeed(None) if self._asked == 2 else super().server(uuid)


class RegistryTests(SynchronousTestCase):
    """A daemon that knows one server."""

    admission = Admission(old_key_grace=600.0)

    def setUp(self) -> None:
        self.start(Daemon(admission=self.admission))

    def start(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.registry = daemon.registry
        daemon.enrol()

    def run_now(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def failing(self, work: Coroutine[Any, Any, Any], kind: type[Exception]) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(work), kind).value

    def asked(self, **changes: Any) -> Enrolment:
        new = Enrolment(OTHER_ID, digest("k"), "other.example.org", "a@example.org", None)
        return replace(new, **changes)

    def enrol(self, **changes: Any) -> bool:
        by = self.daemon.clock.seconds() + 12
        return bool(self.run_now(self.registry.enrol(self.asked(**changes), by)))

    def refusal(self, **changes: Any) -> Any:
        return self.failing(self.registry.enrol(self.asked(**changes), NOW + 12), WireError)

    def server(self, uuid: str = ORG_ID) -> Server:
        server: Server = result(self.daemon.store.server(uuid))
        return server

    def plan(self, plan_type: int, ends_at: float | None = None) -> Server:
        result(self.daemon.store.set_plan(ORG_ID, plan_type, ends_at, NOW))
        return self.server()


class EnrolTests(RegistryTests):
    """Servers that want to be known."""

    def test_new_then_known(self) -> None:
        """A server is new once; then its facts and key are overwritten."""
        self.assertTrue(self.enrol(new_key_digest=digest("ignored")))
        self.assertFalse(self.enrol(hostname="new.example.org", new_key_digest=digest("n")))
        server = self.server(OTHER_ID)
        self.assertEqual((server.hostname, server.key_digest), ("new.example.org", digest("n")))
        self.assertEqual(self.refusal().code, "INVALID_ZULIP_SERVER")
        self.assertEqual(self.refusal().data, {"role": OTHER_ID})

    def test_a_taken_host_name(self) -> None:
        """No two servers have one host name, neither from the start nor by an update."""
        error = self.refusal(hostname="chat.example.org")
        self.assertEqual(error.code, "HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR")
        self.assertEqual(error.data, {"hostname": "chat.example.org"})
        self.enrol()
        error = self.refusal(hostname="chat.example.org")
        self.assertEqual(error.code, "HOSTNAME_ALREADY_IN_USE_BOUNCER_ERROR")
        self.assertEqual(self.server(OTHER_ID).hostname, "other.example.org")

    def test_a_host_name_that_came_free(self) -> None:
        """The host name of a deactivated server can be taken; then the server cannot come back."""
        self.run_now(self.registry.end(ORG_ID))
        self.assertTrue(self.enrol(hostname="chat.example.org"))
        self.failing(self.registry.resume(ORG_ID), HostnameTaken)

    def test_two_at_once(self) -> None:
        """Of two first registrations of one server at once the second is an update."""
        self.daemon = Daemon(store=HastyStore)
        self.registry = self.daemon.registry
        self.daemon.enrol(OTHER_ID, "k", "other.example.org")
        self.assertFalse(self.enrol())

    def test_not_open(self) -> None:
        """A bouncer that is not open takes no new server, and says whom to ask."""
        self.start(Daemon(admission=Admission(is_open=False, support="ops@example.org")))
        self.assertIn("Contact ops@example.org", self.refusal().msg)
        self.daemon.enrol(OTHER_ID, "k", "other.example.org")
        self.assertFalse(self.enrol(contact_email="b@example.org"))

    def test_order(self) -> None:
        """Of several mistakes the domain of the address comes first, then the id, then the key."""
        wrong = {"contact_email": "a@corp.nxdomain.test", "uuid": "x" * 36}
        self.assertEqual(self.refusal(**wrong).msg, "corp.nxdomain.test does not exist")
        wrong["contact_email"] = "a@example.org"
        self.assertEqual(self.refusal(**wrong).msg, "Invalid UUID")
        self.run_now(self.registry.end(ORG_ID))
        self.assertEqual(self.refusal(uuid=ORG_ID).code, "INVALID_ZULIP_SERVER")
        error = self.refusal(uuid=ORG_ID, key_digest=digest(KEY))
        self.assertEqual((error.status, error.code), (401, "REALM_DEACTIVATED"))
        self.assertEqual(error.headers, {})


class RotationTests(RegistryTests):
    """A key's successor."""

    def rotate(self, old: str, new: str | None) -> None:
        new_digest = None if new is None else digest(new)
        self.enrol(key_digest=digest(old), new_key_digest=new_digest)

    def setUp(self) -> None:
        super().setUp()
        self.enrol()

    def test_grace(self) -> None:
        """The former key stays good for the time that the operator chose."""
        self.rotate("k", "n")
        server = self.server(OTHER_ID)
        self.assertEqual(server.old_key_digest, digest("k"))
        self.assertEqual(server.old_key_until, NOW + 600)

    def test_the_former_key_does_not_register(self) -> None:
        """A former key cannot undo what it was replaced for."""
        self.rotate("k", "n")
        error = self.refusal(new_key_digest=digest("evil"))
        self.assertEqual(error.code, "INVALID_ZULIP_SERVER")

    def test_twice(self) -> None:
        """Of two rotations only the latest former key is good."""
        self.rotate("k", "n")
        self.rotate("n", "m")
        self.assertEqual(self.server(OTHER_ID).old_key_digest, digest("n"))

    def test_an_update_is_no_rotation(self) -> None:
        """Registering again after a rotation does not end the former key's time."""
        self.rotate("k", "n")
        self.daemon.clock.advance(10)
        self.rotate("n", None)
        server = self.server(OTHER_ID)
        self.assertEqual((server.old_key_digest, server.old_key_until), (digest("k"), NOW + 600))

    def test_no_grace(self) -> None:
        """Where the operator wants no grace the former key is dead at once."""
        self.start(Daemon(admission=Admission(old_key_grace=0.0)))
        self.enrol()
        self.rotate("k", "n")
        self.assertIsNone(self.server(OTHER_ID).old_key_digest)

    def test_by_the_operator(self) -> None:
        """An operator who rotates a key has a reason: no former key is good any more."""
        self.rotate("k", "n")
        key = self.run_now(self.registry.rotate(OTHER_ID))
        server = self.server(OTHER_ID)
        self.assertEqual(server.key_digest, digest(key))
        self.assertIsNone(server.old_key_digest)
        self.assertEqual(server.hostname, "other.example.org")


class LeavingTests(RegistryTests):
    """Deactivation, and back."""

    def test_at_its_own_wish(self) -> None:
        """A server that leaves is deactivated; its row stays."""
        self.run_now(self.registry.deactivate(self.server(), NOW + 12))
        self.assertTrue(self.server().deactivated)

    def test_with_a_plan(self) -> None:
        """A server with a plan is told by a code, not in words: its own command has the words."""
        error = self.failing(self.registry.deactivate(self.plan(104), NOW + 12), WireError)
        self.assertEqual((error.status, error.code, error.msg), (400, "BAD_REQUEST", ""))
        described = {"error_description": "server deactivation with existing plan"}
        self.assertEqual(error.data, described)
        self.assertFalse(self.server().deactivated)

    def test_which_plans_bind(self) -> None:
        """Plans that are paid or promised bind until they are to end; free ones do not."""
        for plan_type in [101, 103, 104, 105]:
            self.assertTrue(has_binding_plan(self.plan(plan_type)), plan_type)
            self.assertFalse(has_binding_plan(self.plan(plan_type, NOW + 9)), plan_type)
            self.assertFalse(has_binding_plan(self.plan(plan_type, NOW - 9)), plan_type)
        for plan_type in [1, 100, 102]:
            self.assertFalse(has_binding_plan(self.plan(plan_type)), plan_type)

    def test_by_the_operator(self) -> None:
        """The operator can end any registration, by force one with a plan; twice does no harm."""
        self.plan(103)
        self.failing(self.registry.end(ORG_ID), PlanActive)
        self.assertFalse(self.server().deactivated)
        self.run_now(self.registry.end(ORG_ID, force=True))
        self.assertTrue(self.server().deactivated)
        self.run_now(self.registry.end(ORG_ID))

    def test_back(self) -> None:
        """A server that comes back has the key that it had."""
        self.run_now(self.registry.end(ORG_ID))
        self.failing(self.registry.rotate(ORG_ID), UnknownServer)
        self.run_now(self.registry.resume(ORG_ID))
        self.run_now(self.registry.resume(ORG_ID))
        self.assertFalse(self.server().deactivated)
        self.assertEqual(self.server().key_digest, digest(KEY))

    def test_unknown(self) -> None:
        """What is not there can neither end, resume nor rotate."""
        registry = self.registry
        for work in [registry.end(OTHER_ID), registry.resume(OTHER_ID), registry.rotate(OTHER_ID)]:
            self.failing(work, UnknownServer)
