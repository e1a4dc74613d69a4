"""Copies of sockets: what a reactor watches is ours, whatever a library does with its own."""

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.store.sockets import Copies


class CopiesTests(SynchronousTestCase):
    """A library that opens and closes as it likes."""

    def setUp(self) -> None:
        self.copies = Copies()
        self.addCleanup(self.copies.close)

    def test_one_for_each(self) -> None:
        """The same socket has the same copy, however often it is asked for."""
        one, other = socket.socketpair()
        with one, other:
            copy = self.copies.of(one.fileno())
            self.assertEqual(self.copies.of(one.fileno()), copy)
            self.assertNotEqual(self.copies.of(other.fileno()), copy)
            self.assertEqual(len(self.copies), 2)
            os.write(copy, b"x")
            self.assertEqual(other.recv(1), b"x")

    def test_closed_by_the_library(self) -> None:
        """The copy keeps its number until it is let go: nobody else gets it meanwhile."""
        one, other = socket.socketpair()
        with other:
            descriptor = one.fileno()
            copy = self.copies.of(descriptor)
            one.close()
            self.assertEqual(self.copies.of(descriptor), copy)
            self.assertEqual(self.copies.of(-1), copy)
            self.assertTrue(os.fstat(copy))

    def test_another_under_the_same_number(self) -> None:
        """It is told apart."""
        one, other = socket.socketpair()
        with other:
            descriptor = one.fileno()
            copy = self.copies.of(descriptor)
            one.close()
            with socket.socket() as third:
                self.assertEqual(third.fileno(), descriptor)
                self.assertNotEqual(self.copies.of(descriptor), copy)

    def test_let_go(self) -> None:
        """Nothing is left open, and there is none to name."""
        one, other = socket.socketpair()
        with one, other:
            copy = self.copies.of(one.fileno())
            self.copies.close()
            self.assertRaises(OSError, os.fstat, copy)
            self.assertEqual((self.copies.of(-1), len(self.copies)), (-1, 0))
