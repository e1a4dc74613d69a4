"""Every behaviour of the protocol's test doubles has a scenario, and the fakes can do it."""

from twisted.trial.unittest import SynchronousTestCase

from tests import (
    test_fault_matrix_apns,
    test_fault_matrix_fcm,
    test_fault_matrix_links,
    test_fault_matrix_sockets,
    test_fault_matrix_tls,
)
from tests.faults import APPLE, GOOGLE
from tests.matrix import shown_by

APPLES = {
    *("R1", "R2", "R3", "S1", "S2", "G1", "G2", "G3", "G4"),
    *("C1", "C2", "C3", "C4", "C5", "W1", "W2", "M1", "M2", "A1", "A2", "A3", "X1", "X2"),
}
GOOGLES = {*("F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "T1", "H1", "H2", "H3")}
#: What only TLS can show, and what is a figure: no storm in memory brings these.
NOT_WEATHER = {"C5", "A2", "X2"}


class CoverageTests(SynchronousTestCase):
    """None was forgotten."""

    def test_apple(self) -> None:
        """Each id of Apple's has a row or a method."""
        shown = {row.id for row in test_fault_matrix_apns.ROWS}
        modules = test_fault_matrix_links, test_fault_matrix_tls, test_fault_matrix_sockets
        for module in modules:
            shown |= shown_by(module, *(each for each in vars(module).values() if _is_test(each)))
        self.assertEqual(shown, APPLES)

    def test_google(self) -> None:
        """Each id of Google's has a row or a method."""
        module = test_fault_matrix_fcm
        shown = {row.id for row in module.ROWS}
        shown |= shown_by(*(each for each in vars(module).values() if _is_test(each)))
        self.assertEqual(shown, GOOGLES)

    def test_weather(self) -> None:
        """Each id that can be weather is in the simulation's."""
        self.assertEqual({fault.id for fault in APPLE}, APPLES - NOT_WEATHER)
        self.assertEqual({fault.id for fault in GOOGLE}, GOOGLES)


def _is_test(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, SynchronousTestCase)
