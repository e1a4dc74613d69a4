"""Bad weather, thousands of times, on every processor: STORMS=first-last says which seeds."""

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.faults import APPLE, GOOGLE
from tests.test_delivery_simulation import play

SEEDS = range(10_000, 20_000)
SLICE = 100


def _play(provider: str, first: int, last: int) -> Counter[str]:
    reached: Counter[str] = Counter()
    for seed in range(first, last):
        reached += play(provider, seed).reached
    return reached


def test_storms() -> None:
    """Each seed holds what was promised, and all faults were met in plenty."""
    first, _, last = os.environ.get("STORMS", "").partition("-")
    seeds = range(int(first), int(last)) if last else SEEDS
    for provider, faults in (("apple", APPLE), ("google", GOOGLE)):
        starts = range(seeds.start, seeds.stop, SLICE)
        ends = [min(start + SLICE, seeds.stop) for start in starts]
        with ProcessPoolExecutor() as processes:
            parts = list(processes.map(_play, [provider] * len(ends), starts, ends))
        reached = sum(parts, Counter[str]())
        print(f"{provider}: {len(seeds)} seeds met {dict(sorted(reached.items()))}")  # noqa: T201
        assert {fault.id for fault in faults} <= set(reached)
