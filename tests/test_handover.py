"""What one process leaves to the next: exactly what it had, or a clear word."""

import fcntl
import os
import pickle
import struct
import zlib
from dataclasses import replace
from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd import handover
from bouncerd.handover import HandOver, Unreadable, decode, encode
from bouncerd.model import Device, Kind, Message, Push
from bouncerd.passing import Waiting
from tests.memory import a_push

NOW = 1_800_000_000.0
HEADER = struct.Struct(">8sHHIQd32s")
CANARY = "canary-7d1f"

TIMES = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"))
KINDS = st.sampled_from(Kind)
NUMBERS = st.none() | st.integers(-(2**63), 2**63)
MESSAGES = st.builds(
    Message, KINDS, st.binary(max_size=5000), expiration=NUMBERS, priority=NUMBERS,
    push_type=st.none() | TEXTS,
)  # fmt: skip
DEVICES = st.builds(
    Device, st.integers(), KINDS, TEXTS, st.none() | TEXTS, TIMES, user_id=NUMBERS,
    user_uuid=st.none() | TEXTS,
)  # fmt: skip


def waiting(message: Message) -> st.SearchStrategy[list[Waiting]]:
    """Draw pushes of one message to some devices."""
    push = st.builds(Push, TEXTS, TEXTS, DEVICES, st.just(message), TIMES)
    return st.lists(st.builds(Waiting, push, TIMES, TIMES), max_size=3)


def a_hand_over(count: int = 2) -> bytes:
    """Spell some pushes that wait."""
    return encode([Waiting(a_push(f"{n:064x}"), NOW + 60, NOW, retries=n) for n in range(count)], 1)


class FormatTests(SynchronousTestCase):
    """The spelling of it."""

    @given(st.lists(MESSAGES.flatmap(waiting), max_size=4), TIMES)
    def test_there_and_back(self, calls: list[list[Waiting]], now: float) -> None:
        """The next process has exactly what the one before had."""
        all_of_it = [each for call in calls for each in call]
        self.assertEqual(decode(encode(all_of_it, now)), HandOver(tuple(all_of_it), now))

    def test_a_message_comes_once(self) -> None:
        """The phones of a user share one message, before and after."""
        message = Message(Kind.APNS, b"x" * 4000)
        pushes = [Waiting(replace(a_push(str(n)), message=message), 1.0) for n in range(5)]
        data = encode(pushes, NOW)
        self.assertLess(len(data), 8000)
        self.assertEqual(len({id(each.push.message) for each in decode(data).waiting}), 1)

    def test_every_damage_is_noticed(self) -> None:
        """Whichever byte is wrong, nothing is sent of it; while the header is whole it counts."""
        data = a_hand_over()
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= 0x10
            with self.assertRaises(Unreadable) as caught:
                decode(bytes(damaged))
            self.assertEqual(caught.exception.count, 0 if at < HEADER.size + 4 else 2, str(at))
        for size in range(len(data)):
            self.assertRaises(Unreadable, decode, data[:size])
        self.assertRaises(Unreadable, decode, data + b"\0")

    def test_another_version(self) -> None:
        """What a later version wrote is not guessed at, but it is known how many it were."""
        data = a_hand_over(3)
        fields = list(HEADER.unpack_from(data))
        fields[1] += 1
        with self.assertRaises(Unreadable) as caught:
            decode(whole(fields, data[HEADER.size + 4 :]))
        self.assertEqual((caught.exception.count, "version" in caught.exception.why), (3, True))

    def test_an_older_process_knew_fewer_fields(self) -> None:
        """A field that was added with a default is missing in what was written before."""
        data = a_hand_over(1)
        for member in (b'"retries":0,', b'"realm":null,'):
            shorter = rewritten(data, member, b"")
            self.assertEqual(decode(shorter), decode(data))

    def test_a_newer_process_knew_more(self) -> None:
        """A field that we do not know may matter: nothing is sent in part."""
        self.assertRaises(Unreadable, decode, rewritten(a_hand_over(), b'"due"', b'"new":1,"due"'))

    def test_values_of_other_kinds(self) -> None:
        """A correct digest over nonsense is still nonsense."""
        for member, other in {
            b'"kind":1': b'"kind":7',
            b'"id":1': b'"id":"1"',
            b'"deadline":1800000060.0': b'"deadline":NaN',
            b'"due":1800000000.0': b'"due":1e999',
            b'"retries":0': b'"retries":true',
            b'"app_id":': b'"app":',
            b'"message":0': b'"message":1',
            b'"server":"s1"': b'"server":null',
            b'"device":{': b'"device":5,"x":{',
            b"{": b"[",
        }.items():
            self.assertRaises(Unreadable, decode, rewritten(a_hand_over(), member, other))

    def test_lengths_that_lie(self) -> None:
        """A record may not be longer than what is there, nor than any can be."""
        record = struct.Struct(">cII")
        for head, body in ((10**9, 0), (2, 10**9), (1 << 17, 0), (3, 0)):
            forged = record.pack(b"P", head, body) + b"{}"
            self.assertRaises(
                Unreadable, decode, whole(list(HEADER.unpack_from(a_hand_over(1))), forged)
            )
        self.assertRaises(Unreadable, decode, rewritten(a_hand_over(), b"P", b"Q"))

    def test_it_stays_silent(self) -> None:
        """No repr, error or pickle tells what a push says, nor to whom."""
        push = a_push(CANARY)
        push = replace(push, message=replace(push.message, body=CANARY.encode()))
        data = encode([Waiting(push, NOW)], NOW)
        self.assertNotIn(CANARY, repr(decode(data)))
        self.assertRaises(TypeError, pickle.dumps, Waiting(push, NOW))
        with self.assertRaises(Unreadable) as caught:
            decode(rewritten(data, b'"retries":0', f'"retries":"{CANARY}"'.encode()))
        self.assertNotIn(CANARY, repr(caught.exception))
        self.assertIsNone(caught.exception.__cause__)


def whole(header: list[object], body: bytes) -> bytes:
    """Put a header before a body, with lengths and sums that are right."""
    header[4], header[6] = len(body), blake2b(body, digest_size=32).digest()
    packed = HEADER.pack(*header)
    return packed + struct.pack(">I", zlib.crc32(packed)) + body


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    """Change the heads of all records; sums and lengths stay right."""
    record = struct.Struct(">cII")
    body, at, records = data[HEADER.size + 4 :], 0, b""
    changed = False
    while at < len(body):
        kind, head_size, body_size = record.unpack_from(body, at)
        head = body[at + record.size : at + record.size + head_size]
        at += record.size + head_size + body_size
        tail = body[at - body_size : at]
        changed = changed or old in head or old == kind
        head, kind = head.replace(old, new), new if kind == old else kind
        records += record.pack(kind, len(head), len(tail)) + head + tail
    assert changed, old
    return whole(list(HEADER.unpack_from(data)), records)


class MemoryTests(SynchronousTestCase):
    """Where it is kept meanwhile."""

    def test_sealed(self) -> None:
        """What was handed over can be read by the next one and changed by nobody."""
        data = os.urandom(3_000_000)
        descriptor = handover.seal(data)
        self.addCleanup(os.close, descriptor)
        self.assertEqual(handover.unseal(descriptor), data)
        self.assertRaises(OSError, os.write, descriptor, b"x")
        self.assertRaises(OSError, os.ftruncate, descriptor, 0)
        self.assertFalse(os.get_inheritable(descriptor))

    def test_taken_once(self) -> None:
        """Whoever kept a copy of the descriptor, it is taken up once."""
        descriptor = handover.seal(b"data")
        copy = os.dup(descriptor)
        handover.mark_taken(descriptor)
        os.close(descriptor)
        self.addCleanup(os.close, copy)
        self.assertIsNone(handover.unseal(copy))

    def test_other_descriptors(self) -> None:
        """What has our name and is something else is not read."""
        ours, theirs = os.pipe()
        loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
        fcntl.fcntl(loose, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        for descriptor in (ours, theirs, loose):
            self.assertRaises(Unreadable, handover.unseal, descriptor)
            os.close(descriptor)
        self.assertRaises(Unreadable, handover.unseal, loose)
        handover.mark_taken(loose)

    def test_bounded(self) -> None:
        """More than a hand-over can be is not read."""
        descriptor = handover.seal(bytes(101))
        self.addCleanup(os.close, descriptor)
        self.assertRaises(Unreadable, handover.unseal, descriptor, most=100)
