"""An INI file as sections with typed look-ups that gather problems instead of raising.

Knows the syntax and how a mistake is told; nothing of what the keys mean. A value is quoted only
if it is short, and never on a line that could not be read: it may be part of a pasted key.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from configparser import (
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
)
from difflib import get_close_matches
from urllib.parse import urlsplit

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Sections = dict[str, dict[str, str]]

_LONGEST_QUOTED = 80
_SET_ASIDE = "set aside, line "
_NAME = re.compile(r"[A-Za-z0-9_. :-]{1,40}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?\.?")
_YES = {"yes": True, "true": True, "on": True, "1": True}
_NO = {"no": False, "false": False, "off": False, "0": False}


def shown(value: str) -> str:
    """Quote what was found, on one line; say only the length of what is long."""
    if not value:
        return "nothing"
    if len(value) > _LONGEST_QUOTED or "-----" in value:
        return f"{len(value)} characters"
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return f'"{escaped}"'


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known word that was probably meant, else all of them."""
    words = list(known)
    close = get_close_matches(name.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"accepted: {', '.join(words)}"


def parse(text: str) -> tuple[Sections, list[str]]:
    """Return the sections of a file and one line for each mistake of syntax in it."""
    if "PRIVATE KEY-----" in text:
        return {}, ["holds a private key; accepted: the path of a file that holds it"]
    lines = text.split("\n")
    problems: list[str] = []
    while True:
        # No section can be called "", so that [DEFAULT] is a section like others: an unknown one.
        parser = ConfigParser(
            interpolation=None, inline_comment_prefixes=(";",), default_section=""
        )
        try:
            parser.read_string("\n".join(lines))
        except (DuplicateSectionError, DuplicateOptionError, ParsingError) as mistake:
            # The parser stops at the first: set it aside, and read on to tell them all.
            problems.extend(_set_aside(lines, mistake))
        else:
            break
    sections = {name: dict(parser[name]) for name in parser.sections()}
    return _without_what_is_aside(sections), problems


def _set_aside(
    lines: list[str], mistake: DuplicateSectionError | DuplicateOptionError | ParsingError
) -> list[str]:
    match mistake:
        case DuplicateSectionError(lineno=int(number)):
            lines[number - 1] = f"[{_SET_ASIDE}{number}]"
            return [f"line {number}: [{plain(mistake.section)}] is there twice; accepted: once"]
        case DuplicateOptionError(lineno=int(number)):
            lines[number - 1] = f"{_SET_ASIDE}{number} ="
            if mistake.section.startswith(_SET_ASIDE):
                return []
            where = f"[{plain(mistake.section)}] {plain(mistake.option)}"
            return [f"line {number}: {where} is there twice; accepted: once"]
        case MissingSectionHeaderError(lineno=int(number)):
            lines[number - 1] = f"[{_SET_ASIDE}{number}]"
            return [f"line {number}: stands before the first section; accepted: [bouncerd] first"]
        case ParsingError(errors=[_, *_]):
            numbers = sorted({number for number, _ in mistake.errors})
            for number in numbers:
                lines[number - 1] = ""
            return [f"line {n}: neither [section] nor key = value" for n in numbers]
    raise AssertionError("configparser numbers the lines that it complains of")


def _without_what_is_aside(sections: Sections) -> Sections:
    return {
        name: {key: value for key, value in values.items() if not key.startswith(_SET_ASIDE)}
        for name, values in sections.items()
        if not name.startswith(_SET_ASIDE)
    }


def plain(text: str) -> str:
    """Return a section's or key's name if it looks like one; it may be a piece of a pasted key."""
    return text if _NAME.fullmatch(text) else "…"


class Section:
    """One section: each look-up returns a value of its type, and notes a problem if it had none.

    After a problem the value is the default's, so that reading goes on to the next mistake.
    """

    def __init__(self, name: str, values: Mapping[str, str], defaults: Mapping[str, str]) -> None:
        self.name = name
        self.problems: list[str] = []
        self._values = values
        self._defaults = defaults

    def problem(self, key: str, found: str, accepted: str) -> None:
        """Note a mistake as one line: section, key, what was found, what is accepted."""
        self.problems.append(f"[{self.name}] {key}: {found}; accepted: {accepted}")

    def given(self, key: str) -> str:
        """Return the text of a key as the file has it; empty if it is not there."""
        return self._values.get(key, "").strip()

    def text(self, key: str) -> str:
        """Return the text of a key on one line, or its default."""
        value = self.given(key)
        if "\n" in value:
            self.problem(key, f"found {value.count(chr(10)) + 1} lines", "one")
            value = ""
        return value or self._defaults[key]

    def lines(self, key: str) -> list[str]:
        """Return the lines of a key; a key that is there but empty has none."""
        value = self._values.get(key, self._defaults[key])
        return [line.strip() for line in value.splitlines() if line.strip()]

    def words(self, key: str) -> list[str]:
        """Return the words of a key, parted by commas, spaces or line ends."""
        return [word for word in re.split(r"[,\s]+", self.given(key)) if word]

    def whole(self, key: str, low: int, high: int, otherwise: str = "") -> int:
        """Return a whole number from `low` to `high`; `otherwise`: a word also accepted."""
        value = self.text(key)
        if re.fullmatch(r"[0-9]{1,12}", value) and low <= int(value) <= high:
            return int(value)
        accepted = f"a whole number from {low} to {high}" + f", or {otherwise}" * bool(otherwise)
        self.problem(key, f"found {shown(value)}", accepted)
        return int(self._defaults[key])

    def seconds(self, key: str, low: float, high: float, below: bool = False) -> float:
        """Return a number of seconds from `low` to `high`, or under it if `below`."""
        value = self.text(key)
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", value):
            number = float(value)
            if low <= number and (number < high if below else number <= high):
                return number
        upto = f"to less than {_plain(high)}" if below else f"to {_plain(high)}"
        accepted = f"a number of seconds, from {_plain(low)} {upto}"
        self.problem(key, f"found {shown(value)}", accepted)
        return float(self._defaults[key])

    def yes(self, key: str) -> bool:
        """Return a yes or no."""
        value = self.text(key).lower()
        answer = (_YES | _NO).get(value)
        if answer is None:
            self.problem(key, f"found {shown(value)}", "yes or no")
            return _YES.get(self._defaults[key], False)
        return answer

    def one_of(self, key: str, accepted: Sequence[str]) -> str:
        """Return one of the accepted words."""
        value = self.text(key).lower()
        if value in accepted:
            return value
        self.problem(key, f"found {shown(value)}", " or ".join(accepted))
        return self._defaults[key]

    def networks(self, key: str) -> tuple[IPNetwork, ...]:
        """Return addresses and networks."""
        networks: list[IPNetwork] = []
        for word in self.words(key):
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError:
                self.problem(key, f"found {shown(word)}", _network_meant(word))
        return tuple(networks)

    def origin(self, key: str, default: str) -> tuple[str, int]:
        """Return host and port of an https address without a path."""
        value = self.text(key) or default
        host, port, rest = https_parts(value)
        if host and rest in ("", "/"):
            return host, port
        self.problem(key, f"found {_address(value)}", f"https://host:port{_no_http(value)}")
        return "", 443

    def address(self, key: str, schemes: Sequence[str]) -> str:
        """Return a web address of one of the schemes, or nothing; no slash at its end."""
        value = self.text(key)
        scheme, _, _ = value.partition("://")
        host, _, rest = https_parts(value.replace(f"{scheme}://", "https://", 1))
        if not value or (host and scheme in schemes and not re.search(r"[?#]", rest)):
            return value.rstrip("/")
        self.problem(key, f"found {_address(value)}", f"{schemes[0]}://host or nothing")
        return ""


def https_parts(value: str) -> tuple[str, int, str]:
    """Split https://host:port/rest; the host is empty if it is not such an address."""
    nothing = ("", 0, "")
    if not re.fullmatch(r"https://[!-~]+", value) or "@" in value:
        return nothing
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc:
            ipaddress.IPv6Address(host)
        elif not _HOST.fullmatch(host):
            return nothing
    except ValueError:
        return nothing
    if port == 0 or parts.netloc.endswith(":"):
        return nothing
    return host, port or 443, value.partition(parts.netloc)[2]


def _address(value: str) -> str:
    return "an address with a user name in it" if "@" in value else shown(value)


def _no_http(value: str) -> str:
    return " (http:// would send keys and messages unencrypted)" * value.startswith("http://")


def _network_meant(word: str) -> str:
    accepted = "addresses and networks, such as 127.0.0.1 or 10.0.0.0/8"
    try:
        meant = ipaddress.ip_network(word, strict=False)
    except ValueError:
        return accepted
    return f"{accepted} (the network of this one is {meant})"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
