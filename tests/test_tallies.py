"""Adding up what became of pushes: what is told apart, and how much a tenant can make of it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.ledger import End
from bouncerd.model import Device, Kind, Message, Push
from bouncerd.tallies import DAY, MOST_APPS, MOST_ROWS, Counts, OutcomeCount, PushCount, Tallies

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
REALM = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
APP = "org.example.app"
TODAY = 20_000
NOW = TODAY * DAY + 100.0


def a_push(
    server: str = ONE,
    app: str | None = APP,
    realm: str | None = REALM,
    *,
    sealed: bool = False,
    counted: bool = True,
) -> Push:
    """Return a push for a phone of an app."""
    kind = Kind.FCM if app is None else Kind.APNS
    device = Device(1, kind, "c0ffee", app, 1.0, user_id=None if sealed else 7, sealed=sealed)
    return Push("id", server, device, Message(kind, b"Hello"), NOW, realm, counted)


class TalliesTests(SynchronousTestCase):
    """What is counted."""

    def setUp(self) -> None:
        self.now = NOW
        self.tallies = Tallies(lambda: self.now)

    def taken(self) -> Counts:
        return self.tallies.take(1_000_000)

    def outcomes(self) -> list[tuple[object, ...]]:
        """Return server, provider, app, kind, reason and count of what is taken."""
        return sorted(
            (each.server, each.provider, each.app, each.kind, each.reason, each.count)
            for each in self.taken().outcomes
        )

    def test_nothing(self) -> None:
        """Without a push there is nothing to store."""
        self.assertEqual((len(self.tallies), self.taken()), (0, Counts()))
        self.assertFalse(self.taken())

    def test_outcomes(self) -> None:
        """Equal outcomes are one row, with the times of the first and the last."""
        for _ in range(3):
            self.tallies.note("apns", a_push(), "delivered", "")
            self.now += 1
        self.tallies.note("apns", a_push(), "retry", "TooManyRequests")
        self.tallies.note("fcm", a_push(app=None), "refused", "INVALID_ARGUMENT")
        self.assertEqual(len(self.tallies), 5)  # two for the daily counts
        first = OutcomeCount(ONE, TODAY, "apns", APP, "delivered", "", 3, NOW, NOW + 2)
        taken = self.taken()
        self.assertIn(first, taken.outcomes)
        self.assertEqual(
            sorted((each.app, each.kind, each.reason) for each in taken.outcomes),
            [
                ("", "refused", "INVALID_ARGUMENT"),
                (APP, "delivered", ""),
                (APP, "retry", "TooManyRequests"),
            ],
        )
        self.assertEqual(self.taken(), Counts())

    def test_days(self) -> None:
        """What happens after midnight, UTC, is another day's."""
        self.now = (TODAY + 1) * DAY - 0.001
        self.tallies.note("apns", a_push(), "delivered", "")
        self.now += 0.001
        self.tallies.note("apns", a_push(), "delivered", "")
        taken = self.taken()
        days = [TODAY, TODAY + 1]
        self.assertEqual(sorted(each.day for each in taken.outcomes), days)
        self.assertEqual(sorted(each.day for each in taken.servers), days)
        self.assertEqual(sorted(each.day for each in taken.realms), days)

    def test_a_clock_that_is_set_back(self) -> None:
        """What came later may seem to be earlier; no row is the first time after its last."""
        self.tallies.note("apns", a_push(), "delivered", "")
        self.now -= 100.0
        self.tallies.note("apns", a_push(), "delivered", "")
        [row] = self.taken().outcomes
        self.assertEqual((row.count, row.first, row.last), (2, self.now, self.now + 100.0))

    def test_legacy(self) -> None:
        """A push in the clear counts for its server, and for its realm if that is known."""
        self.tallies.received(ONE, REALM, 2)
        self.tallies.received(ONE, None, 3)
        self.tallies.note("apns", a_push(), "delivered", "")
        self.tallies.note("apns", a_push(realm=None), "delivered", "")
        self.tallies.note("apns", a_push(), "gone", "Unregistered")
        taken = self.taken()
        self.assertEqual(taken.servers, (PushCount(ONE, TODAY, 5, 2),))
        self.assertEqual(taken.realms, (PushCount(REALM, TODAY, 2, 1),))

    def test_sealed(self) -> None:
        """An end-to-end push counts for its realm only."""
        self.tallies.received(None, REALM, 2)
        self.tallies.note("apns", a_push(sealed=True), "delivered", "")
        taken = self.taken()
        self.assertEqual(taken.servers, ())
        self.assertEqual(taken.realms, (PushCount(REALM, TODAY, 2, 1),))

    def test_tests(self) -> None:
        """A test notification is an outcome, and none of the pushes that are counted."""
        self.tallies.note("apns", a_push(counted=False), "delivered", "")
        taken = self.taken()
        self.assertEqual((len(taken.outcomes), taken.servers, taken.realms), (1, (), ()))

    def test_delivered_later(self) -> None:
        """A push that is delivered the day after counts as forwarded on that day."""
        self.tallies.received(ONE, None, 1)
        self.now += DAY
        self.tallies.note("apns", a_push(realm=None), "delivered", "")
        self.assertEqual(
            set(self.taken().servers),
            {PushCount(ONE, TODAY, 1, 0), PushCount(ONE, TODAY + 1, 0, 1)},
        )

    def test_no_phone(self) -> None:
        """A push for nobody is not counted: nothing is written for an increment of 0."""
        self.tallies.received(ONE, REALM, 0)
        self.assertEqual(self.taken(), Counts())

    def test_take_some(self) -> None:
        """What is not taken stays, and goes on to be added to."""
        for kind in ("delivered", "gone", "refused", "expired"):
            self.tallies.note("apns", a_push(), kind, "")
        first = self.tallies.take(3)
        self.assertEqual((len(first), len(self.tallies)), (3, 3))
        self.tallies.note("apns", a_push(), "delivered", "")
        second = self.taken()
        counts: Counter[str] = Counter()
        for each in (*first.outcomes, *second.outcomes):
            counts[each.kind] += each.count
        self.assertEqual(counts, {"delivered": 2, "gone": 1, "refused": 1, "expired": 1})
        self.assertEqual(sum(each.forwarded for each in (*first.realms, *second.realms)), 2)


class HostileTests(SynchronousTestCase):
    """What a tenant writes into our rows."""

    def setUp(self) -> None:
        self.now = NOW
        self.tallies = Tallies(lambda: self.now)

    def test_apps(self) -> None:
        """A server with thousands of apps has a few told apart; the others are one."""
        for number in range(5000):
            self.tallies.note("apns", a_push(app=f"app{number}"), "refused", "no section")
            if number % 1000 == 0:
                self.tallies.take(10)  # what was stored counts too
        apps = {each.app for each in self.tallies.take(10**6).outcomes}
        self.assertLessEqual(len(apps), MOST_APPS + 1)
        self.assertIn("other", apps)

    def test_no_app(self) -> None:
        """What does not look like an app's id is none: no content gets there, and no query."""
        for app in ("a b", "Hello there!", "x" * 156, "\0", "\ud800", "app\n", "ünï"):
            self.tallies.note("apns", a_push(app=app), "delivered", "")
        [row] = self.tallies.take(100).outcomes
        self.assertEqual((row.app, row.count), ("other", 7))

    def test_neighbours(self) -> None:
        """What one server does to its rows does nothing to another's."""
        for number in range(5000):
            self.tallies.note("apns", a_push(app=f"app{number}"), "gone", f"reason{number}")
        self.tallies.note("apns", a_push(TWO), "delivered", "")
        rows = [each for each in self.tallies.take(10**6).outcomes if each.server == TWO]
        self.assertEqual([(each.app, each.count) for each in rows], [(APP, 1)])

    def test_rows(self) -> None:
        """So many rows a day has a server; the rest is added up by provider and end."""
        for number in range(1000):
            self.tallies.note("apns", a_push(), "retry", f"reason{number}")
        rows = self.tallies.take(10**6).outcomes
        self.assertEqual(len(rows), MOST_ROWS + 1)
        [rest] = [each for each in rows if each.reason == "other"]
        self.assertEqual((rest.app, rest.kind, rest.count), ("other", "retry", 1000 - MOST_ROWS))
        self.now += DAY
        self.tallies.note("apns", a_push(), "retry", "reason999")
        self.assertEqual(self.tallies.take(1).outcomes[0].reason, "reason999")

    def test_outage(self) -> None:
        """While nothing can be stored rows are added to; new ones beyond a bound are dropped."""
        tallies = Tallies(lambda: self.now, most=10)
        for number in range(100):
            tallies.note("apns", a_push(f"{number}", realm=None), "refused", "")
            tallies.received(f"{number}", None, 1)
        tallies.note("apns", a_push("0", realm=None), "refused", "")
        self.assertEqual((len(tallies), tallies.dropped), (10, 190))
        self.assertEqual(max(each.count for each in tallies.take(10).outcomes), 2)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([ONE, TWO]),
                st.one_of(st.none(), st.text(max_size=3)),
                st.sampled_from(End),
                st.sampled_from(["", "a", "b"]),
                st.floats(0, DAY / 3),
                st.integers(0, 3),
            ),
            max_size=60,
        )
    )
    def test_nothing_is_lost(
        self, events: list[tuple[str, str | None, End, str, float, int]]
    ) -> None:
        """Whatever comes, each event is in one row, of its server, its end and its day."""
        self.now, expected = NOW, Counter[tuple[str, str, int]]()
        got: Counter[tuple[str, str, int]] = Counter()
        for server, app, end, reason, later, take in events:
            self.now += later
            self.tallies.note("apns", a_push(server, app, None), end.value, reason)
            expected[server, end.value, int(self.now // DAY)] += 1
            for each in self.tallies.take(take).outcomes:
                got[each.server, each.kind, each.day] += each.count
        for each in self.tallies.take(10**6).outcomes:
            self.assertLessEqual(each.first, each.last)
            got[each.server, each.kind, each.day] += each.count
        self.assertEqual(got, expected)
        self.assertEqual((len(self.tallies), self.tallies.dropped), (0, 0))
