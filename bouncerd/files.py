"""Where the files named in a configuration lie, and reading them.

A relative path is looked up among systemd's credentials first, then beside the configuration
file. What a file holds is in no message; nor is a path that looks like a pasted secret.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bouncerd.credentials import Unusable
from bouncerd.ini import Section

T = TypeVar("T")
_LARGEST = 1 << 20
_LIKE_A_SECRET = re.compile(r'[A-Za-z0-9+/_=-]{40,}|.*([{}":]|-----).*')


class Files:
    """The files that one configuration may name, as they are `now` (unix seconds).

    `warnings`: what works, but deserves the operator's eye; `copies`: whose file is systemd's copy.
    """

    def __init__(self, configuration: Path, environ: Mapping[str, str], now: float) -> None:
        self.now = now
        beside = configuration.absolute().parent
        credentials = environ.get("CREDENTIALS_DIRECTORY", "")
        self._directories = [Path(credentials), beside] if credentials else [beside]
        self._copied = Path(credentials) if credentials else None
        self.warnings: list[str] = []
        self.copies: list[str] = []

    def read(
        self,
        section: Section,
        key: str,
        accepted: str,
        use: Callable[[bytes], T],
        *,
        secret: bool = True,
    ) -> T | None:
        """Return what `use` makes of a key's file; None if the key is empty or a problem noted.

        With `secret`, a file that everybody can read is worth a warning.
        """
        value = section.text(key)
        if not value:
            return None
        found = [directory / value for directory in self._directories]
        path = next((each for each in found if os.path.lexists(each)), None)
        if path is None:
            section.problem(key, _nowhere(value, found), accepted)
            return None
        try:
            result = use(content(path))
        except Unusable as wrong:
            section.problem(key, f"{path} {wrong}", accepted)
            return None
        if self._copied is not None and path.is_relative_to(self._copied):
            self.copies.append(f"[{section.name}] {key}")
        if secret and path.stat().st_mode & stat.S_IROTH:
            self.warnings.append(f"[{section.name}] {key}: every user can read {path}")
        return result


def content(path: Path) -> bytes:
    """Return the content of a regular file of a sensible size, or raise Unusable."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unusable("is not a file")
            data = file.read(_LARGEST + 1)
    except IsADirectoryError:
        raise Unusable("is a directory") from None
    except PermissionError:
        raise Unusable("must not be read by this user") from None
    except OSError as error:
        raise Unusable(f"cannot be read ({os.strerror(error.errno or 0)})") from None
    if len(data) > _LARGEST:
        raise Unusable("is larger than a key file can be")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for a writer, in case it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _nowhere(value: str, found: list[Path]) -> str:
    if _LIKE_A_SECRET.fullmatch(value) or not value.isprintable():
        return "found what is not the path of a file"
    return "no file " + " nor ".join(str(path) for path in dict.fromkeys(found))
