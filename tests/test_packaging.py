"""What an installation has in it, and how twistd finds it."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import bouncerd

ROOT = Path(__file__).parent.parent
TWISTD_HELP = "import sys; from twisted.scripts.twistd import run; sys.argv[1:] = ['--help']; run()"


def requirement_name(line: str) -> str:
    """Return a distribution's name as all spell it."""
    name = re.split(r"[<>=~!;\[ ]", line, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def run(code: str, directory: Path, path: Path) -> str:
    """Return what a piece of Python prints where only `path` is added to the search path."""
    environ = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class SetupTests(SynchronousTestCase):
    """setup.cfg and what it promises."""

    def setUp(self) -> None:
        self.text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
        self.setup = configparser.ConfigParser(interpolation=None)
        self.setup.read_string(self.text)

    def requirements(self, section: str, key: str) -> list[str]:
        return [line for line in self.setup[section][key].splitlines() if line.strip()]

    def test_every_import_is_required(self) -> None:
        """Whatever the daemon imports is installed with it, and nothing else is."""
        homes = metadata.packages_distributions()
        used: set[str] = set()
        for path in (ROOT / "bouncerd").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in getattr(node, "names", [])]
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif not isinstance(node, ast.Import):
                    names = []
                used |= {name.split(".")[0] for name in names}
        foreign = used - sys.stdlib_module_names - {"bouncerd"}
        # `zope` is shared by many distributions, of which zope.interface is meant; `twisted` by
        # Twisted and, for its plugin, this one.
        needed = {
            requirement_name(home)
            for name in foreign
            for home in (["zope.interface"] if name == "zope" else homes[name])
        } - {"bouncerd"}
        required = set(map(requirement_name, self.requirements("options", "install_requires")))
        optional = set(
            map(requirement_name, self.requirements("options.extras_require", "postgresql"))
        )
        self.assertEqual(needed - required - optional, set(), "not in install_requires")
        self.assertEqual(required - needed - {"service-identity"}, set(), "not imported")

    def test_every_requirement_says_why(self) -> None:
        """Above each requirement stands what it is for, and it has a lower bound."""
        lines = self.text.splitlines()
        requirements = [*self.requirements("options", "install_requires")]
        for extra in self.setup["options.extras_require"]:
            requirements += self.requirements("options.extras_require", extra)
        for requirement in requirements:
            self.assertIn(">=", requirement)
        for requirement in self.requirements("options", "install_requires"):
            above = lines[lines.index(f"    {requirement}") - 1]
            self.assertRegex(above, r"^    # .{15}", requirement)

    def test_data_files(self) -> None:
        """Every file of the package that is not Python is among its data."""
        patterns = {
            f"{package.replace('.', '/')}/{pattern}"
            for package, found in self.setup["options.package_data"].items()
            for pattern in found.split()
        }
        for path in (ROOT / "bouncerd").rglob("*"):
            name = str(path.relative_to(ROOT))
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                self.assertTrue(any(fnmatch(name, pattern) for pattern in patterns), name)

    def test_version(self) -> None:
        """There is one version, and the list of changes has it."""
        self.assertEqual(self.setup["metadata"]["version"], "attr: bouncerd.__version__")
        changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        self.assertIn(f"## {bouncerd.__version__} ", changes)

    def test_license(self) -> None:
        """The licence is the one that the metadata names."""
        self.assertEqual(self.setup["metadata"]["license"], "Apache-2.0")
        self.assertIn("Version 2.0, January 2004", (ROOT / "LICENSE").read_text(encoding="utf-8"))


class PluginTests(SynchronousTestCase):
    """twistd's view."""

    def test_no_packages_of_twisted(self) -> None:
        """The folders of the plugin are no packages: they would hide Twisted's own."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_listed(self) -> None:
        """`twistd --help` lists the daemon and the stand-ins."""
        said = run(TWISTD_HELP, ROOT, ROOT)
        self.assertRegex(said, r"\n +bouncerd +\S")
        self.assertRegex(said, r"\n +bouncerd-fakes +\S")

    def test_costs_nothing(self) -> None:
        """Listing the plugin loads neither the daemon nor a reactor."""
        said = run(
            "import sys, twisted.plugins.bouncerd_plugin as plugin;"
            "print([m for m in sys.modules if m.startswith('bouncerd')"
            " or m == 'twisted.internet.reactor'])",
            ROOT,
            ROOT,
        )
        self.assertEqual(said.strip(), "[]")

    def test_after_an_installation(self) -> None:
        """A wheel has the plugin, every module and every schema, and twistd lists it."""
        with tempfile.TemporaryDirectory() as directory:
            source, installed = Path(directory) / "source", Path(directory) / "installed"
            source.mkdir()
            for name in ("bouncerd", "twisted"):
                ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / name, source / name, ignore=ignore)
            for path in (*ROOT.glob("*.cfg"), *ROOT.glob("*.toml"), *ROOT.glob("*.md")):
                shutil.copy(path, source)
            build = "import setuptools.build_meta as build; build.build_wheel('.')"
            run(build, source, source)
            (wheel,) = source.glob("*.whl")
            zipfile.ZipFile(wheel).extractall(installed)
            self.assertRegex(run(TWISTD_HELP, installed, installed), r"\n +bouncerd-fakes +\S")
            here = {str(p.relative_to(source)) for p in (source / "bouncerd").rglob("*.*")}
            there = {str(p.relative_to(installed)) for p in (installed / "bouncerd").rglob("*.*")}
            self.assertEqual(here, there)


class UnitTests(SynchronousTestCase):
    """The unit file."""

    def test_what_it_must_say(self) -> None:
        """It stays in the foreground, keeps no core and no swap, and can run pyOpenSSL."""
        unit = (ROOT / "systemd" / "bouncerd.service").read_text(encoding="utf-8")
        settings = [line for line in unit.splitlines() if line and not line.startswith("#")]
        self.assertIn(
            "ExecStart=/opt/bouncerd/bin/twistd -n --pidfile= bouncerd -c /etc/bouncer.ini",
            settings,
        )
        for line in ("LimitCORE=0", "MemorySwapMax=0", "DynamicUser=yes", "UMask=0077"):
            self.assertIn(line, settings)
        self.assertNotIn("MemoryDenyWriteExecute", "\n".join(settings))
        self.assertIn("# MemoryDenyWriteExecute stays off:", unit)
