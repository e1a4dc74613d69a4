"""What an operator can publish: what was planted, what was done, where was searched, what found."""

import platform
import sqlite3
import time
from collections import Counter

import bouncerd
from bouncerd.fakes.privacy.canaries import STORE, spellings
from bouncerd.fakes.privacy.evidence import CORES, FILES, UNNAMED, Evidence


def report(evidence: Evidence) -> str:
    """Write the report, as Markdown that reads well as it is."""
    lines = ["# Is anything of a message kept? A trial of bouncerd", "", *_circumstances(), ""]
    lines += [_verdict(evidence), "", "## Planted", "", *_planted(evidence), ""]
    lines += ["## Done", "", *_done(evidence), "", "## Searched", "", *_searched(evidence)]
    if evidence.findings:
        lines += ["", "## Found", "", *_found(evidence)]
    lines += ["", "## Good to know", "", *_remarks(evidence)]
    return "\n".join(lines) + "\n"


def _circumstances() -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    system = f"{platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return [
        f"bouncerd {bouncerd.__version__}, {when}; {python}, {system}.",
        "The daemon ran as it does in production, against stand-ins of Apple and Google.",
    ]


def _verdict(evidence: Evidence) -> str:
    if evidence.findings:
        return f"**FOUND {len(evidence.findings)} times**: see below."
    return f"**Nothing was found** of {len(evidence.canaries)} random words that were planted."


def _planted(evidence: Evidence) -> list[str]:
    counts = Counter(_kind(each.name) for each in evidence.canaries)
    kept = {_kind(each.name) for each in evidence.canaries if STORE in each.kept}
    forms = {form for each in evidence.canaries[:20] for form, _, _ in spellings(each.text)}
    lines = [
        f"* {count} x {name}{' (kept in the store, and nowhere else)' if name in kept else ''}"
        for name, count in sorted(counts.items())
    ]
    return [*lines, "", f"Each was looked for: {', '.join(sorted(forms))}; and in pieces."]


def _kind(name: str) -> str:
    return name.partition(" (")[0].partition(":")[0]


def _done(evidence: Evidence) -> list[str]:
    answers = ", ".join(
        f"{count} x {status or 'no answer'}" for status, count in sorted(evidence.statuses.items())
    )
    calls = f"{evidence.calls} calls in all; the answers: {answers}"
    return [f"* {what}" for what in [*evidence.driven, calls]]


def _searched(evidence: Evidence) -> list[str]:
    lines = [
        f"* {place}: {count} times, {size:,} bytes"
        for place, (count, size) in sorted(evidence.searched.items())
    ]
    met = {*evidence.searched, *(each.place for each in evidence.findings)}
    none = [place for place in (CORES, FILES, UNNAMED) if place not in met]
    return lines + [f"* {place}: there were none" for place in none]


def _found(evidence: Evidence) -> list[str]:
    return [f"* {each.canary.name}: in {each.place} ({each.form})" for each in evidence.findings]


def _remarks(evidence: Evidence) -> list[str]:
    return [
        *(f"* {remark}" for remark in evidence.remarks),
        f"* {evidence.echoes} answers told a caller again what its own call said (a token, say)",
        "* not searched: memory, and where the operating system might put it (swap: the units",
        "  forbid it); the hand-over from one process to the next, which is memory",
        "* to repeat it: `make prove-privacy`; what is kept, why and how long: docs/privacy.md",
    ]
