"""The core scenarios in full size (apns.md 7.5, fcm.md 7.4)."""

from tests import test_core_apns, test_core_fcm


class AppleTests(test_core_apns.CoreTests):
    """Ten thousand pushes."""

    pushes = 10_000


class GoogleTests(test_core_fcm.CoreTests):
    """Twenty thousand messages; five times a quota of a thousand."""

    pushes = 20_000

    def test_5_a_quota(self) -> None:
        """As the page has it: 1,000 a minute, 5,000 messages."""
        self.pushes = 1_000
        super().test_5_a_quota()
