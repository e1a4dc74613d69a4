"""What an operator decides holds for everyone who needs it, from the next call on."""

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.boxes import Boxes
from bouncerd.config import Config, read
from bouncerd.mailboxes import Mailboxes
from bouncerd.policy import Policy
from bouncerd.settings import E2ee
from tests.places import a_directory


class PolicyTests(SynchronousTestCase):
    """Everyone is a blank sheet here: what is written on it is what was told."""

    def setUp(self) -> None:
        self.events = EventLoggingObserver()
        globalLogPublisher.addObserver(self.events)
        self.addCleanup(globalLogPublisher.removeObserver, self.events)
        path = a_directory(self) / "bouncer.ini"
        path.write_text(
            "[bouncerd]\nsupport = ops@example.org\nterms_url = https://example.org/terms\n"
            "keep_for = 7\n[limits]\nrequests_per_minute = 3\nregistrations_per_hour = 4\n"
            "devices_per_user = 5\n[registration]\nopen = no\nold_key_grace = 6\n"
            "[entitlement]\nfree_users = 9\n"
        )
        self.config = read(path, environ={}, now=0.0)

        def mailboxes(config: Config) -> Mailboxes | None:
            return cast(Mailboxes, "strict" if config.registration.check_email_domain else "lax")

        told: dict[str, Any] = {each.name: SimpleNamespace() for each in fields(Policy)}
        told["mailboxes"] = mailboxes
        told["sealed"].boxes = Boxes()
        self.policy = Policy(**told)

    def test_everyone_is_told(self) -> None:
        """Limits, registration, plans and whom to ask for help are all the new file's."""
        policy, support = self.policy, "ops@example.org"
        policy.apply(self.config)
        for rules in (policy.bouncer.rules, policy.sealed.rules):
            self.assertEqual((rules.keep_for, rules.devices_per_user), (7.0, 5))
            self.assertEqual(rules.support, support)
        for each in (policy.bouncer, policy.sealed, policy.uploads, policy.pages.setting):
            self.assertEqual(each.free_users, 9)
        for one in (policy.api, policy.links, policy.transfers, policy.registry.admission):
            self.assertEqual(one.support, support)
        admission = policy.registry.admission
        self.assertEqual((admission.is_open, admission.old_key_grace), (False, 6.0))
        self.assertEqual(policy.registry.mailboxes, "strict")
        self.assertEqual(policy.strangers.per_hour, 4)
        self.assertEqual(policy.api.requests_per_minute, 3)
        contact = policy.pages.setting.contact
        self.assertEqual(
            (contact.support, contact.terms_url), (support, "https://example.org/terms")
        )

    def test_end_to_end_keys(self) -> None:
        """New keys are used, and the one for new apps is told; the same keys again are not."""
        for _ in range(2):
            self.policy.apply(replace(self.config, e2ee=E2ee((b"a" * 32, b"b" * 32))))
        self.assertEqual(len(self.policy.sealed.boxes.public_keys), 2)
        (event,) = self.events
        self.assertEqual(event["count"], 2)
        self.assertEqual(event["public_key"], self.policy.sealed.boxes.public_keys[0])
