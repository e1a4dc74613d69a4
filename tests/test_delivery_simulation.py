"""Bad weather, hundreds of times: whatever happens, the promises hold (storm.py, faults.py).

A seed that fails is printed; `STORM=apple:1234 pytest tests/test_delivery_simulation.py` replays
it, and `STORMS=0-50000` plays as many as you like.
"""

import os
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import APPLE, GOOGLE
from tests.storm import AppleStorm, GoogleStorm, Storm

WEATHER: dict[str, type[Storm]] = {"apple": AppleStorm, "google": GoogleStorm}
SEEDS = range(1_000)  # of each provider


def play(provider: str, seed: int) -> Storm:
    """Play one seed; say which it was if it fails."""
    storm = WEATHER[provider](seed)
    try:
        storm.storm()
        if seed % 3:
            storm.clear_up()
            assert storm.lane.waiting == 0, "fine weather, and pushes still wait"
        storm.stop()
        storm.judge()
    except BaseException:
        print(f"replay: STORM={provider}:{seed} pytest tests/test_delivery_simulation.py")  # noqa: T201
        raise
    return storm


def seeds() -> range:
    """Return the seeds that were asked for."""
    first, _, last = os.environ.get("STORMS", "").partition("-")
    return range(int(first), int(last)) if last else SEEDS


class SimulationTests(SynchronousTestCase):
    """Each push has one end, the books balance at every step, and nobody is offended."""

    def test_replay(self) -> None:
        """A seed named by STORM=provider:seed is played alone."""
        provider, _, seed = os.environ.get("STORM", "apple:0").partition(":")
        play(provider, int(seed))

    def test_apple(self) -> None:
        """Whatever Apple and the network do, and all of it was done."""
        self.play_all("apple", {fault.id for fault in APPLE})

    def test_google(self) -> None:
        """Whatever Google and the network do, and all of it was done."""
        self.play_all("google", {fault.id for fault in GOOGLE})

    def play_all(self, provider: str, ids: set[str]) -> None:
        """Play every seed; each id of the protocol's page was met in some."""
        reached: Counter[str] = Counter()
        for seed in seeds():
            reached += play(provider, seed).reached
        met = {name for name, count in reached.items() if count}
        self.assertEqual(met, ids | {"adopt", "hand_over"})
