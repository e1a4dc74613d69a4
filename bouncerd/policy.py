"""What the operator decides, and to whom it is told: when the daemon is built, and at each reload.

These are the decisions that hold from the next call on. Whoever needs one keeps it in a plain
attribute and reads it at each use; nobody but this module sets them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from bouncerd.api import Api
from bouncerd.bouncer import Bouncer, Rules
from bouncerd.boxes import Boxes
from bouncerd.config import Config
from bouncerd.links import Links
from bouncerd.mailboxes import Mailboxes
from bouncerd.markup import Contact
from bouncerd.pages import Pages, Setting
from bouncerd.registry import Admission, Registry
from bouncerd.sealedpush import SealedPushes
from bouncerd.strangers import Strangers
from bouncerd.transfers import Transfers
from bouncerd.uploading import Uploads

log = Logger()


def rules(config: Config) -> Rules:
    """Return what holds for pushes and phones."""
    return Rules(
        keep_for=config.bouncerd.keep_for,
        devices_per_user=config.limits.devices_per_user,
        support=config.bouncerd.support,
    )


def admission(config: Config) -> Admission:
    """Return what holds for registrations of servers."""
    registration = config.registration
    return Admission(registration.open, registration.old_key_grace, config.bouncerd.support)


def setting(config: Config) -> Setting:
    """Return what the web pages say."""
    daemon = config.bouncerd
    contact = Contact(daemon.support, daemon.terms_url)
    return Setting(contact, config.entitlement.free_users, daemon.answer_within)


def say_keys(boxes: Boxes) -> None:
    """Tell the operator what to build into the apps."""
    if boxes.public_keys:
        log.info(
            "End-to-end keys: {count}; build apps with this public one: {public_key}",
            count=len(boxes.public_keys),
            public_key=boxes.public_keys[0],
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Everyone who needs to know. `mailboxes` makes what checks contact addresses."""

    bouncer: Bouncer
    sealed: SealedPushes
    registry: Registry
    mailboxes: Callable[[Config], Mailboxes | None]
    transfers: Transfers
    strangers: Strangers
    uploads: Uploads
    links: Links
    api: Api
    pages: Pages

    def apply(self, config: Config) -> None:
        """Tell them."""
        free_users, support = config.entitlement.free_users, config.bouncerd.support
        self.bouncer.rules = self.sealed.rules = rules(config)
        self.bouncer.free_users = self.sealed.free_users = self.uploads.free_users = free_users
        boxes = Boxes(config.e2ee.private_keys)
        if boxes.public_keys != self.sealed.boxes.public_keys:
            self.sealed.boxes = boxes
            say_keys(boxes)
        self.registry.admission = admission(config)
        self.registry.mailboxes = self.mailboxes(config)
        self.strangers.per_hour = config.limits.registrations_per_hour
        self.api.requests_per_minute = config.limits.requests_per_minute
        self.api.support = self.links.support = self.transfers.support = support
        self.pages.setting = setting(config)
