"""The unit files, as an operator installs them and systemd judges them."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.units import UNITS, setting, settings

SINGLE, TEMPLATE, SOCKET, TARGET = (
    f"bouncerd{suffix}" for suffix in (".service", "@.service", ".socket", ".target")
)
MOST_EXPOSED = 1.5
INSTALL = UNITS.parent / "docs" / "install.md"
HAS_SYSTEMD = shutil.which("systemd-analyze") is not None


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, without a pager or manual pages."""
    command = ["systemd-analyze", "--no-pager", "--man=no", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class ServiceTests(SynchronousTestCase):
    """What the units say."""

    def test_one_and_many_are_alike(self) -> None:
        """An instance is confined and treated as the one process is, but for its name."""
        single, many = settings(SINGLE), settings(TEMPLATE)
        started = setting(SINGLE, "ExecStart") + " --instance %i"
        self.assertEqual(setting(TEMPLATE, "ExecStart"), started)
        password = [("LoadCredential", "pgpass"), ("Environment", "PGPASSFILE=%d/pgpass")]
        self.assertEqual(
            [each for each in many if each[0] != "ExecStart" and each not in password],
            [each for each in single if each[0] != "ExecStart"],
        )
        for section in ("Unit", "Install"):
            facts = [each for each in settings(TEMPLATE, section) if each[0] != "Description"]
            alike = [each for each in settings(SINGLE, section) if each[0] != "Description"]
            self.assertEqual(facts, alike)

    def test_what_it_must_say(self) -> None:
        """It tells systemd how it is, and keeps content out of core files and swap."""
        said = settings(SINGLE)
        for wanted in (
            "Type=notify", "NotifyAccess=main", "ExecReload=/bin/kill -HUP $MAINPID",
            "Sockets=bouncerd.socket", "LimitCORE=0", "MemorySwapMax=0", "DynamicUser=yes",
            "UMask=0077", "StateDirectory=bouncerd", "NoNewPrivileges=yes", "KillMode=mixed",
        ):  # fmt: skip
            key, _, value = wanted.partition("=")
            self.assertIn((key, value), said)
        self.assertGreater(int(setting(SINGLE, "WatchdogSec")), 5)
        self.assertGreater(int(setting(SINGLE, "FileDescriptorStoreMax")), 0)
        self.assertGreaterEqual(int(setting(SINGLE, "TimeoutStopSec")), 20)
        self.assertNotIn("MemoryDenyWriteExecute", dict(said))
        self.assertIn("# MemoryDenyWriteExecute stays off:", (UNITS / SINGLE).read_text("utf-8"))

    def test_secrets(self) -> None:
        """Each secret that the sample configuration names is passed in without further ado."""
        sample = (UNITS.parent / "etc" / "bouncer.ini").read_text("utf-8")
        named = re.findall(r"^(?:key_file|credentials) = (\S+)", sample, re.MULTILINE)
        passed = [value for key, value in settings(SINGLE) if key == "LoadCredential"]
        self.assertEqual(set(named) - set(passed), set())
        self.assertEqual(len(named), 2)
        # An absolute path that is not there would be an error, and there is none of all of them.
        self.assertEqual([name for name in passed if "/" in name or ":" in name], [])

    def test_the_socket_outlives_restarts(self) -> None:
        """The socket stops with the target, and does not restart with it."""
        said = settings(SOCKET, "Unit")
        self.assertIn(("StopPropagatedFrom", TARGET), said)
        self.assertNotIn("PartOf", dict(said))
        self.assertIn(("PartOf", TARGET), settings(SINGLE, "Unit"))
        self.assertEqual(setting(SOCKET, "FileDescriptorName", "Socket"), "bouncerd")

    def test_the_target_pulls_all_in(self) -> None:
        """What is enabled starts with the target, and the target with the machine."""
        for unit in (SINGLE, TEMPLATE, SOCKET):
            self.assertEqual(setting(unit, "WantedBy", "Install"), TARGET)
        self.assertEqual(setting(SINGLE, "Also", "Install"), TARGET)
        self.assertEqual(setting(TARGET, "WantedBy", "Install"), "multi-user.target")

    def test_the_install_page(self) -> None:
        """The page names each unit, and the endpoint by the name that the socket bears."""
        page = INSTALL.read_text("utf-8")
        for unit in (SINGLE, TEMPLATE, SOCKET, TARGET):
            self.assertIn(unit, page)
        name = setting(SOCKET, "FileDescriptorName", "Socket")
        self.assertIn(f"listen = systemd:INET:name={name}", page)
        self.assertIn(f"listen = systemd:INET:name={name}", (UNITS / SOCKET).read_text("utf-8"))


@skipUnless(HAS_SYSTEMD, "systemd-analyze is not here (Debian: apt-get install systemd)")
class AnalysisTests(SynchronousTestCase):
    """What systemd itself says of them."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        for unit in UNITS.glob("bouncerd*"):
            # The program is that of an installed system, which need not be this one.
            start, text = "ExecStart=/bin/true", unit.read_text("utf-8")
            text = re.sub(r"^ExecStart=\S+", start, text, flags=re.MULTILINE)
            (self.directory / unit.name).write_text(text, "utf-8")
        for instance in ("bouncerd@1.service", "bouncerd@2.service"):
            shutil.copy(self.directory / TEMPLATE, self.directory / instance)

    def test_verified(self) -> None:
        """systemd has nothing to say against any of them, all loaded together."""
        names = (SINGLE, "bouncerd@1.service", "bouncerd@2.service", SOCKET, TARGET)
        done = analyze("verify", *(str(self.directory / name) for name in names))
        self.assertEqual((done.stdout + done.stderr, done.returncode), ("", 0))

    def test_exposure(self) -> None:
        """What is left to a process that was broken into is little, by systemd's own measure."""
        for name in (SINGLE, "bouncerd@1.service"):
            done = analyze("security", "--offline=yes", str(self.directory / name))
            figure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
            assert figure, done
            self.assertLessEqual(float(figure[1]), MOST_EXPOSED, done.stdout)
