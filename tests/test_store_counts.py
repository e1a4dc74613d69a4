"""What every store must do with what became of pushes: each sum is added once."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bouncerd.leasing import Ask
from bouncerd.tallies import DAY, Counts, OutcomeCount, PushCount
from tests.test_store_contract import ONE, TWO, StoreCase
from tests.test_store_uploads import a_realm_row, an_upload

THREE = "33333333-3333-4333-8333-333333333333"
REALM = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
APP = "org.example.app"
TODAY = 20_000


def met(
    count: int = 1,
    server: str = ONE,
    day: int = TODAY,
    kind: str = "delivered",
    first: float = 1.0,
    last: float = 2.0,
    **more: Any,
) -> OutcomeCount:
    """Return a row of outcomes."""
    facts = {"provider": "apns", "app": APP, "reason": ""} | more
    return OutcomeCount(
        server=server, day=day, kind=kind, count=count, first=first, last=last, **facts
    )


class CountsContract(StoreCase):
    """The behaviour of any store toward counts."""

    __test__ = False

    def add(self, counts: Counts, number: int = 1, writer: str = "writer") -> bool:
        return self.do(self.store.add_counts(writer, number, counts, 1000.0))

    def outcomes(self, server: str = ONE, since: int = 0) -> list[OutcomeCount]:
        return self.do(self.store.outcomes(server, since))

    def pushes(self, server: str = ONE, since: int = 0) -> list[PushCount]:
        return self.do(self.store.push_counts(server, since))

    def add_realm(self) -> None:
        self.do(self.store.upload(self.one, an_upload(realms=[a_realm_row(uuid=REALM)]), 1.0))

    # Adding.

    def test_add(self) -> None:
        """What was added is found, by its server and from a day on."""
        rows = met(3), met(2, day=TODAY - 1), met(1, TWO, kind="gone", reason="Unregistered")
        self.assertTrue(self.add(Counts(rows)))
        self.assertEqual(self.outcomes(), [rows[1], rows[0]])
        self.assertEqual(self.outcomes(since=TODAY), [rows[0]])
        self.assertEqual(self.outcomes(TWO), [rows[2]])
        self.assertEqual(self.outcomes(THREE), [])
        self.assertEqual(self.outcomes("\0"), [])

    def test_add_to_what_is_there(self) -> None:
        """Processes and seconds add to one row, which keeps the first and the last time."""
        self.add(Counts((met(3, first=10.0, last=20.0),)))
        self.add(Counts((met(4, first=5.0, last=15.0),)), 2)
        self.add(Counts((met(5, first=12.0, last=30.0),)), 1, "other writer")
        self.assertEqual(self.outcomes(), [met(12, first=5.0, last=30.0)])

    def test_rows_are_told_apart(self) -> None:
        """Another day, provider, app, end or reason is another row."""
        rows = (
            *(met(), met(day=TODAY + 1), met(provider="fcm"), met(app="")),
            *(met(kind="retry"), met(reason="TooManyRequests")),
        )
        self.add(Counts(rows))
        self.assertEqual(len(self.outcomes()), len(rows))
        self.assertEqual(set(self.outcomes()), set(rows))

    def test_once(self) -> None:
        """A number that was stored is not stored again, however often it is tried."""
        counts = Counts((met(3),), (PushCount(ONE, TODAY, 4, 3),))
        self.assertTrue(self.add(counts))
        for _ in range(3):
            self.assertFalse(self.add(counts))
        self.assertTrue(self.add(counts, 2))
        self.assertFalse(self.add(counts, 1))
        self.assertTrue(self.add(counts, 1, "other writer"))
        self.assertEqual(self.outcomes(), [met(9)])
        self.assertEqual(self.pushes(), [PushCount(ONE, TODAY, 12, 9)])

    def test_what_fails_may_be_tried_again(self) -> None:
        """Sums that cannot be stored leave nothing, and do not use up their number."""
        bad = Counts((met(3), met(app="\0")), (PushCount(ONE, TODAY, 1, 1),))
        self.refused(self.store.add_counts("writer", 1, bad, 1000.0), ValueError)
        self.assertEqual((self.outcomes(), self.pushes()), ([], []))
        self.assertTrue(self.add(Counts((met(3),))))
        self.assertEqual(self.outcomes(), [met(3)])

    def test_nothing(self) -> None:
        """No sums are sums too."""
        self.assertTrue(self.add(Counts()))
        self.assertEqual((self.outcomes(), self.pushes()), ([], []))

    def test_unknown(self) -> None:
        """What is of a server or a realm that went meanwhile is left out; the rest is stored."""
        counts = Counts(
            (met(1, THREE), met(2)),
            (PushCount(THREE, TODAY, 1, 1), PushCount(ONE, TODAY, 2, 2)),
            (PushCount(REALM, TODAY, 3, 3),),
        )
        self.assertTrue(self.add(counts))
        self.assertEqual(self.outcomes(), [met(2)])
        self.assertEqual(self.pushes(), [PushCount(ONE, TODAY, 2, 2)])

    def test_many(self) -> None:
        """Thousands of rows are stored as well as one."""
        rows = tuple(met(1, reason=f"{number:04}") for number in range(1200))
        self.add(Counts(rows))
        self.assertEqual(self.outcomes(), list(rows))

    # Daily counts.

    def test_push_counts(self) -> None:
        """A server's count comes first, then those of its realms; none of other servers."""
        self.add_realm()
        rows = PushCount(ONE, TODAY, 5, 3), PushCount(TWO, TODAY, 7, 7)
        self.add(Counts((), rows, (PushCount(REALM, TODAY, 2, 1),)))
        self.add(Counts((), (), (PushCount(REALM, TODAY, 0, 1), PushCount(REALM, 1, 1, 0))), 2)
        self.assertEqual(
            self.pushes(), [PushCount(REALM, 1, 1, 0), rows[0], PushCount(REALM, TODAY, 2, 2)]
        )
        self.assertEqual(self.pushes(since=TODAY), [rows[0], PushCount(REALM, TODAY, 2, 2)])
        self.assertEqual(self.pushes(TWO), [rows[1]])

    def test_apart_from_uploads(self) -> None:
        """They are not among what servers upload, where these could add to them."""
        self.add_realm()
        self.add(Counts((), (PushCount(ONE, TODAY, 5, 3),), (PushCount(REALM, TODAY, 2, 1),)))
        for table in ("realm_counts", "installation_counts"):
            self.assertEqual(self.select(f"SELECT * FROM {table}"), [])

    # Pruning.

    def test_prune(self) -> None:
        """Each kind is deleted from before its own day, and what is of that day stays."""
        days = range(TODAY - 5, TODAY + 1)
        counts = Counts(
            tuple(met(day=day) for day in days), tuple(PushCount(ONE, day, 1, 1) for day in days)
        )
        self.add(counts)
        self.assertEqual(self.do(self.store.prune_counts(TODAY - 1, TODAY - 3)), 7)
        self.assertEqual([each.day for each in self.outcomes()], [TODAY - 1, TODAY])
        self.assertEqual([each.day for each in self.pushes()], list(range(TODAY - 3, TODAY + 1)))
        self.assertEqual(self.do(self.store.prune_counts(TODAY - 1, TODAY - 3)), 0)

    def test_prune_a_little_at_a_time(self) -> None:
        """Much that is old goes in short writes, so that nobody waits long."""
        self.add(Counts(tuple(met(day=1, reason=f"{number}") for number in range(1200))))
        deleted = [self.do(self.store.prune_counts(TODAY, TODAY)) for _ in range(4)]
        self.assertEqual(deleted, [500 + 1, 500, 200, 0])  # and what is known of the writer
        self.assertEqual(self.outcomes(), [])

    def test_prune_writers(self) -> None:
        """What is known of writers goes when nobody can need it any more."""
        self.add(Counts((met(),)))
        self.do(self.store.add_counts("new", 1, Counts((met(),)), TODAY * DAY))
        self.assertEqual(self.do(self.store.prune_counts(1, 1)), 1)
        self.assertEqual(self.select("SELECT writer FROM count_writers"), [("new",)])
        self.assertEqual(self.outcomes(), [met(2)])

    def test_prune_leases(self) -> None:
        """So does what is known of the limits of servers that are idle for long."""
        self.do(self.store.lease([Ask(ONE, 10, 1)], 60.0))
        self.assertEqual(self.do(self.store.prune_counts(10**6, 1)), 1)
        self.assertEqual(self.select("SELECT key FROM leases"), [])


class LeasesContract(StoreCase):
    """The behaviour of any store toward limits that processes share."""

    __test__ = False

    def ask(self, *asks: Ask) -> list[tuple[int, int, int]]:
        leases = self.do(self.store.lease(asks, 60.0))
        return [(lease.granted, lease.ahead, lease.left) for lease in leases]

    def test_limit(self) -> None:
        """A limit is used up once, whoever asks."""
        self.assertEqual(self.ask(Ask(ONE, 10, 4)), [(4, 0, 6)])
        self.assertEqual(self.ask(Ask(ONE, 10, 5)), [(5, 0, 1)])
        self.assertEqual(self.ask(Ask(ONE, 10, 2)), [(1, 0, 0)])
        [refused] = self.do(self.store.lease([Ask(ONE, 10, 1)], 60.0))
        self.assertEqual((refused.granted, refused.left), (0, 0))
        self.assertTrue(0 < refused.retry_in <= refused.free_in <= 60.0)

    def test_many_keys(self) -> None:
        """One question is for many keys; the answers are in the order of the question."""
        asks = [Ask(TWO, 3, 5), Ask(ONE, 10, 5), Ask(THREE, 0, 5)]
        self.assertEqual(self.ask(*asks), [(3, 0, 0), (5, 0, 5), (0, 0, 0)])

    def test_give_back(self) -> None:
        """What was granted ahead and is not used is there for others."""
        [first] = self.do(self.store.lease([Ask(ONE, 1000, 1, 20)], 60.0))
        self.assertEqual((first.granted, first.ahead, first.left), (1, 10, 989))
        self.assertEqual(self.ask(Ask(ONE, 1000, 1, 20)), [(1, 0, 988)])
        self.assertEqual(self.ask(Ask(ONE, 1000, 0, back=((first.entry, 7),))), [(0, 0, 988 + 7)])
        self.assertEqual(self.ask(Ask(ONE, 1000, 1, 3)), [(1, 3, 991)])

    def test_nothing(self) -> None:
        """No question has no answer."""
        self.assertEqual(self.ask(), [])

    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from([ONE, TWO, THREE]), st.integers(0, 30)),
                max_size=3,
                unique_by=lambda each: each[0],
            ),
            max_size=8,
        )
    )
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    def test_sum(self, asked: list[list[tuple[str, int]]]) -> None:
        """Whatever is asked together, each key gets its limit, no more and no less."""
        self.round = getattr(self, "round", 0) + 1
        taken = dict.fromkeys((ONE, TWO, THREE), 0)
        for asks in asked:
            answers = self.ask(*(Ask(f"{key}{self.round}", 50, wanted) for key, wanted in asks))
            for (key, wanted), (granted, _, left) in zip(asks, answers, strict=True):
                self.assertEqual(granted, min(wanted, 50 - taken[key]))
                taken[key] += granted
                self.assertEqual(left, 50 - taken[key])
