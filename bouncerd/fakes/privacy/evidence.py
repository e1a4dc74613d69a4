"""What was planted, where was searched, and what was found there."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from bouncerd.fakes.privacy.canaries import STORE, Cage, Canary, Finding

# Places, as the report names them.
LOG = "standard output and standard error"
ANSWERS = "answers to calls, head and body"
METRICS, HEALTH = "/metrics", "/health"
FILES = "other files that the daemon left (also in its directory and its /tmp)"
UNNAMED = "open files without a name"
CORES = "core files"
_OVERLAP, _SEAM = 1000, 200  # bytes, in which each form of a word has room


@dataclass
class Evidence:
    """Grows while the daemon is driven. Each search is for all canaries planted until then."""

    canaries: list[Canary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    searched: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    statuses: Counter[int] = field(default_factory=Counter)
    driven: list[str] = field(default_factory=list)
    echoes: int = 0  # answers that repeat to its sender what was in the call
    calls: int = 0
    remarks: list[str] = field(default_factory=list)
    cage: Cage = field(default_factory=Cage, repr=False)
    _forms: dict[Canary, str] = field(default_factory=dict, repr=False)  # as seen last
    _pages: set[bytes] = field(default_factory=set, repr=False)  # digests of what was searched
    _read: dict[Path, int] = field(default_factory=dict, repr=False)  # bytes of a file that grows

    def plant(
        self, name: str, text: str, tenant: str = "", *kept: str, repeatable: bool = True
    ) -> str:
        """Note that a word goes in somewhere; return it."""
        canary = Canary(name, text, tenant, frozenset(kept), repeatable)
        self.canaries.append(canary)
        self.cage.add(canary)
        return text

    def look(self, place: str, data: bytes, *, kind: str = "") -> None:
        """Search some bytes of a place; of another `kind`, if that is what may keep tokens."""
        self._count(place, data)
        self._note(place, {each for each in self._found(data) if (kind or place) not in each.kept})

    def look_into(self, place: str, path: Path, *, kind: str = "") -> None:
        """Search a file, its name too; one that is gone meanwhile has nothing in it."""
        try:
            data = path.read_bytes()
        except OSError:
            return
        self.look(place, path.name.encode() + b"\n" + data, kind=kind)

    def look_into_pages(self, place: str, path: Path, kind: str, page: int, start: int = 0) -> None:
        """Search a file in pages, but for those that were as they are when they were searched."""
        try:
            data = path.read_bytes()
        except OSError:
            return
        self._count(place, data)
        found: set[Canary] = set()
        for at in (0, *range(start, len(data), page)):
            known = blake2b(data[at : at + page], digest_size=16).digest()
            if known not in self._pages:
                self._pages.add(known)
                found |= self._found(data[max(0, at - _SEAM) : at + page + _SEAM])
        self._note(place, {each for each in found if kind not in each.kept})

    def look_on(self, place: str, path: Path) -> None:
        """Search what was appended to a file since it was searched, and a little before that."""
        with path.open("rb") as file:
            file.seek(max(0, self._read.get(path, 0) - _OVERLAP))
            data = file.read()
            self._read[path] = file.tell()
        self.look(place, data)

    def answer(self, tenant: str, asked: bytes, status: int, data: bytes) -> None:
        """Search an answer. What its own call said may be in it, and its own tenant's tokens."""
        self._count(ANSWERS, data)
        self.statuses[status] += 1
        found = self._found(data)
        said = {each for each in self._found(asked) if each.repeatable} if found else set()
        self.echoes += bool(found & said)
        own = {each for each in found if STORE in each.kept and each.tenant == tenant}
        self._note(ANSWERS, found - said - own)

    def _found(self, data: bytes) -> set[Canary]:
        found = self.cage.found_in(data)
        self._forms.update(found)
        return set(found)

    def _note(self, place: str, found: set[Canary]) -> None:
        for canary in found:
            finding = Finding(canary, place, self._forms[canary])
            if finding not in self.findings:
                self.findings.append(finding)

    def _count(self, place: str, data: bytes) -> None:
        self.searched[place][0] += 1
        self.searched[place][1] += len(data)
