"""What every test shares: a seeded, bounded hypothesis profile; and houses for whole journeys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import HealthCheck, settings
from twisted.internet.defer import Deferred

from tests.house import House

settings.register_profile(
    "bouncerd",
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bouncerd")


@pytest.fixture
def rent(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Return a way to get a house, which is torn down afterwards."""
    houses: list[House] = []

    def let(apns_mode: str = "token") -> House:
        houses.append(House(tmp_path, apns_mode))
        return houses[-1]

    yield let
    for house in houses:
        pytest_twisted.blockon(Deferred.fromCoroutine(house.close()))
