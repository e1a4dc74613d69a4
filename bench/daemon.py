"""How many calls and pushes the whole daemon carries, per second of its own CPU time.

    python -m bench.daemon [--store postgresql] [--processes 2] [--log-level verbose] ...
    python -m bench.daemon --store postgresql --against '--processes 2'

The processes of bouncerd share CPU 0; HAProxy in Apple's place, wrk as the Zulip servers and
PostgreSQL share CPU 1. Each call is a real `push/notify` for a user with so many iPhones, answered
after APNs answered. `--against` names the options of a second variant, which takes turns with the
first, as do `--starts` new pairs of processes. CPU is user and system time of bouncerd's
processes, all together. Loopback only.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.apns_by_haproxy import haproxy
from bench.variants import Variant, Variants, Workshop, options


@dataclass(frozen=True)
class Figures:
    """What one stretch of load came to."""

    calls: int
    failed: int
    pushes: float
    cpu: tuple[float, ...]  # seconds, of each process
    p99: str

    @property
    def us(self) -> float:
        """Microseconds of CPU a call."""
        return 1e6 * sum(self.cpu) / self.calls


def load(variant: Variant, seconds: int) -> Figures:
    """Have wrk call for so long."""
    command = ["wrk", "-t1", f"-c{variant.asked.callers}", "--latency", f"-d{seconds}s"]
    before, pushed = variant.cpu(), variant.delivered()
    done = subprocess.run(
        [*command, "-s", str(variant.script), variant.url],
        capture_output=True, text=True, check=True, timeout=seconds + 30,
    )  # fmt: skip
    cpu = tuple(after - earlier for after, earlier in zip(variant.cpu(), before, strict=True))
    said = done.stdout
    found = re.search(r"(\d+) requests in", said)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    p99 = re.search(r"^ +99% +([\d.]+\S+)$", said, re.MULTILINE)
    time.sleep(0.3)  # pushes whose callers were gone when the time was up
    return Figures(
        int(found[1]) if found else 0,
        int(failed[1]) if failed else 0,
        variant.delivered() - pushed,
        cpu,
        p99[1] if p99 else "?",
    )


def tell(variant: Variant, figures: list[Figures]) -> None:
    """Print a variant's medians."""
    each = sorted(figure.us for figure in figures)
    us = statistics.median(each)
    calls, cpu = sum(f.calls for f in figures), sum(sum(f.cpu) for f in figures)
    pushes = sum(f.pushes for f in figures)
    shares = [sum(f.cpu[n] for f in figures) / cpu for n in range(len(variant.children))]
    print(
        f"{variant.name}: {us:.1f} us a call (median of {len(each)}, {each[0]:.1f} to"
        f" {each[-1]:.1f}): {1e6 / us:,.0f} calls and {pushes / cpu:,.0f} pushes per CPU-second;"
        f" {calls} calls, {sum(f.failed for f in figures)} failed, p99 {figures[-1].p99} at"
        f" saturation; shares {' '.join(f'{share:.0%}' for share in shares)}"
    )


def compare(first: list[Figures], second: list[Figures]) -> None:
    """Print what the second takes more than the first, pair by pair."""
    ratios = sorted(b.us / a.us - 1 for a, b in zip(first, second, strict=True))
    spread = f"{ratios[0]:+.1%} to {ratios[-1]:+.1%}"
    best = min(b.us for b in second) / min(a.us for a in first) - 1
    print(
        f"the second against the first: {statistics.median(ratios):+.1%} CPU a call ({spread}),"
        f" by the best of each {best:+.1%}"
    )


def measure(variants: list[Variant], rounds: int, seconds: int) -> list[list[Figures]]:
    """Load all in turns, each round in the other order."""
    figures: list[list[Figures]] = [[] for _ in variants]
    turns = list(enumerate(variants))
    for _, variant in turns:
        load(variant, 2)
    for number in range(rounds):
        for which, variant in turns[:: -1 if number % 2 else 1]:
            figures[which].append(load(variant, seconds))
    return figures


@contextmanager
def profiled(variant: Variant, lines: int) -> Iterator[None]:
    """Profile its first process meanwhile, and print what takes most."""
    import pstats  # noqa: PLC0415

    child = variant.children[0]
    child.send_signal(signal.SIGUSR1)
    yield
    child.send_signal(signal.SIGUSR2)
    time.sleep(2)
    found = pstats.Stats(str(variant.profile)).strip_dirs()
    found.sort_stats("tottime").print_stats(lines)
    found.sort_stats("cumulative").print_stats(lines)


def main() -> None:
    """Measure."""
    parser = options(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--against", help="options that the second variant has otherwise")
    parser.add_argument("--profile", type=int, default=0, metavar="LINES", help="of cProfile's")
    parser.add_argument("--dsn", default="", help="a PostgreSQL server to use; the wheel's if none")
    asked = parser.parse_args()
    for program in ("wrk", "haproxy"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed (apt-get install {program})")
    os.sched_setaffinity(0, {1})  # and all children but bouncerd
    wanted = Variants(asked, asked.against)
    figures: list[list[Figures]] = [[] for _ in wanted.all]
    print(f"load of this machine before: {os.getloadavg()[0]:.1f}")
    with ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory()))
        shop = Workshop(directory, held.enter_context(haproxy(directory, 1)), asked.dsn)
        held.callback(shop.close)
        for _ in range(asked.starts):
            with ExitStack() as running:
                made = [running.enter_context(shop.started(each)) for each in wanted.all]
                if asked.profile:
                    load(made[0], 2)
                    with profiled(made[0], asked.profile):
                        load(made[0], asked.seconds)
                    continue
                for which, found in enumerate(measure(made, asked.rounds, asked.seconds)):
                    figures[which] += found
    if not asked.profile:
        for variant, found in zip(made, figures, strict=True):
            tell(variant, found)
        if len(figures) == 2:
            compare(*figures)
    print(f"and after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
