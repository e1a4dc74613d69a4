"""The proof that nothing of a message is kept: it holds, and would not for builds that leak."""

import base64
import html
import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.fakes.privacy import acts
from bouncerd.fakes.privacy.acts import MISHAPS, Stage
from bouncerd.fakes.privacy.canaries import Cage, Canary, foreign_word, word
from bouncerd.fakes.privacy.evidence import (
    ANSWERS,
    CORES,
    FILES,
    LOG,
    METRICS,
    UNNAMED,
    Evidence,
)
from bouncerd.fakes.privacy.proof import prove
from bouncerd.fakes.privacy.report import report
from bouncerd.fakes.privacy.searching import STORE_FILES
from tests import leaks

Plot = tuple[Callable[[Stage], None], ...]
SHORT: Plot = (acts.arrivals, acts.pushes)


def leaking(leak: Callable[[], None], directory: Path, plot: Plot = SHORT) -> set[tuple[str, str]]:
    """Drive a build that leaks; return what was found where."""
    prelude = f"from tests import leaks; leaks.{leak.__name__}()\n"
    prelude += MISHAPS if acts.failures in plot else ""
    evidence = prove(directory, plot, prelude)
    assert not evidence.findings or "**FOUND" in report(evidence)
    return {(each.place, each.canary.name.partition(":")[0]) for each in evidence.findings}


def test_nothing_is_kept(tmp_path: Path) -> None:
    """Whatever is done to the daemon, what is in messages, tokens and keys is found nowhere."""
    evidence = prove(tmp_path)
    told = report(evidence)
    assert evidence.findings == [], told
    assert "**Nothing was found**" in told
    for place in (LOG, METRICS, ANSWERS, STORE_FILES):
        count, size = evidence.searched[place]
        assert count > 1, place
        assert size > 1000, place
    assert {200, 400, 401, 403, 404, 405, 413, 500, 503} <= evidence.statuses.keys()
    assert len(evidence.canaries) > 300
    assert len(evidence.driven) == len({*acts_of(), acts.pushes}), evidence.driven


def acts_of() -> set[Callable[[Stage], None]]:
    """Return all acts that there are."""
    named = vars(acts).values()
    return {
        each
        for each in named
        if callable(each) and getattr(each, "__annotations__", {}).keys() == {"stage", "return"}
        and not each.__name__.startswith("_")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("leak", "place"),
    [
        (leaks.log, LOG),
        (leaks.encoded_log, LOG),
        (leaks.metric, METRICS),
        (leaks.row, STORE_FILES),
        (leaks.nameless_file, UNNAMED),
        (leaks.answer, ANSWERS),
    ],
)
def test_a_leak_is_found(leak: Callable[[], None], place: str, tmp_path: Path) -> None:
    """A build that lets content out by one way is found out, and the way is named."""
    found = leaking(leak, tmp_path)
    assert any(name.startswith("content") for _, name in found), found
    assert {where for where, _ in found} == {place}, found


def test_a_token_in_the_log(tmp_path: Path) -> None:
    """So is one that logs the beginnings of tokens, which the store alone may keep."""
    assert (LOG, "a device token of Apple's") in leaking(leaks.token, tmp_path)


def test_a_temporary_file(tmp_path: Path) -> None:
    """So is one that leaves any file behind."""
    found = leaking(leaks.temporary_file, tmp_path)
    assert found == {(FILES, "a file, whatever is in it")}


def test_an_exception_that_is_quoted(tmp_path: Path) -> None:
    """So is one that logs what exceptions say."""
    found = leaking(leaks.exception, tmp_path, (acts.arrivals, acts.failures))
    assert {where for where, _ in found} == {LOG}, found
    assert len(found) > 20, found


def test_a_hand_over_on_disk(tmp_path: Path) -> None:
    """So is one that puts what waits on a disk for a moment."""
    found = leaking(leaks.handed_over_on_disk, tmp_path, (acts.arrivals, acts.succession))
    assert found == {(STORE_FILES, "content that is handed over")}


def test_a_core_file(tmp_path: Path) -> None:
    """So is one that may leave a core file."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        raise SkipTest("no core is allowed here")
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/")):
        raise SkipTest("a core goes elsewhere here")
    found = leaking(leaks.core, tmp_path, (acts.arrivals, acts.abortion))
    assert found == {(CORES, "a file, whatever is in it")}


class CageTests(SynchronousTestCase):
    """A word is recognised however it is spelled."""

    @given(st.binary(max_size=7), st.binary(max_size=7), st.booleans(), st.data())
    def test_spellings(
        self, before: bytes, after: bytes, foreign: bool, data: st.DataObject
    ) -> None:
        """In base64 at any offset, hexadecimal, escaped, in UTF-16, cut: it is seen."""
        text = foreign_word() if foreign else word()
        plain = before + text.encode() + after
        units = "".join(f"\\u{ord(each):04X}" for each in text)
        spelled = data.draw(
            st.sampled_from(
                [
                    plain,
                    base64.b64encode(plain),
                    base64.urlsafe_b64encode(plain),
                    plain.hex().encode(),
                    plain.hex().upper().encode(),
                    quote(text).encode(),
                    "".join(f"%{each:02X}" for each in text.encode()).encode(),
                    json.dumps({"x": text}).encode(),
                    units.encode(),
                    repr(text.encode()).encode(),
                    text.encode("ascii", "xmlcharrefreplace"),
                    html.escape(text).encode(),
                    text.encode("utf-16"),
                    text.encode("utf-16-be"),
                    text.encode("utf-32"),
                    text[:8].encode(),
                    text[-8:].encode(),
                    (text if foreign else text.upper()).encode(),
                ]
            )
        )
        canary = Canary("a word", text)
        cage = Cage()
        cage.add(canary)
        self.assertIn(canary, cage.found_in(spelled))
        self.assertIn(canary, cage.found_in(b"\n" * 9 + spelled + b"\n"))

    def test_others(self) -> None:
        """Other words are not taken for it."""
        cage = Cage()
        for _ in range(200):
            cage.add(Canary("a word", word()))
        others = " ".join(word() for _ in range(500)).encode()
        self.assertEqual(cage.found_in(others + base64.b64encode(others)), {})


class EvidenceTests(SynchronousTestCase):
    """Who may see what."""

    def setUp(self) -> None:
        self.evidence = Evidence()

    def places(self) -> list[str]:
        return [each.place for each in self.evidence.findings]

    def test_tokens_are_kept(self) -> None:
        """A token may be in the store, in no log, and in answers to its own server only."""
        token = self.evidence.plant("a token", word(), "alice", "the store").encode()
        self.evidence.look(STORE_FILES, token, kind="the store")
        self.evidence.answer("alice", b"", 200, token)
        self.assertEqual(self.places(), [])
        self.evidence.answer("bob", b"", 200, token)
        self.evidence.look(LOG, token)
        self.assertEqual(self.places(), [ANSWERS, LOG])

    def test_content_is_told_to_its_sender(self) -> None:
        """What a call says may be in its own answer, and not in that to the next call."""
        said = self.evidence.plant("content", word(), "alice").encode()
        self.evidence.answer("alice", b"x" + said, 400, said)
        self.assertEqual((self.places(), self.evidence.echoes), ([], 1))
        self.evidence.answer("alice", b"", 400, said)
        self.assertEqual(self.places(), [ANSWERS])

    def test_keys_are_told_to_nobody(self) -> None:
        """A key is in no answer, not even in that to the call that shows it."""
        key = self.evidence.plant("a key", word(), "alice", repeatable=False).encode()
        self.evidence.answer("alice", key, 200, key)
        self.assertEqual(self.places(), [ANSWERS])

    def test_a_growing_file(self) -> None:
        """Of a log that grows no seam is missed."""
        text = self.evidence.plant("content", word(), "alice")
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory) / "log"
            for piece in ("begin " + text[:5], text[5:] + " end"):
                with log.open("a") as file:
                    file.write(piece)
                self.evidence.look_on(LOG, log)
        self.assertEqual(self.places(), [LOG])
