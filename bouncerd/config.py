"""Reading a configuration file; every mistake in it is told at once.

Reads the file and the key material that it names, once. Secrets are in no message.
Pure but for reading those files: nothing of Twisted, no clock.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bouncerd import sections as read_section
from bouncerd.credentials import LEGACY_KEY, ApnsKey, ClientCertificate, ServiceAccount
from bouncerd.files import Files
from bouncerd.ini import Section, Sections, nearest, parse, plain
from bouncerd.settings import (
    DEFAULTS,
    ApnsSection,
    Config,
    Daemon,
    E2ee,
    Entitlement,
    FcmSection,
    Limits,
    Registration,
)

__all__ = [
    "ApnsKey",
    "ApnsSection",
    "ClientCertificate",
    "Config",
    "ConfigError",
    "Daemon",
    "E2ee",
    "Entitlement",
    "FcmSection",
    "Limits",
    "Registration",
    "ServiceAccount",
    "read",
]

_REPEATABLE = ("apns", "fcm")
_OWN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")  # it goes into logs and metrics
_LEGACY_FCM_KEYS = ("api_key", "server_key", "android_gcm_api_key", "gcm_api_key")


class ConfigError(Exception):
    """What is wrong with a configuration file: `problems`, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def read(
    path: Path,
    instance: str = "",
    environ: Mapping[str, str] = os.environ,
    *,
    now: float,
) -> Config:
    """Return the configuration in `path`, or raise ConfigError with every mistake in it.

    `instance` is what `{instance}` stands for; `now` (unix seconds) dates the certificates.
    """
    texts, problems = parse(_text(path))
    for name, values in texts.items():
        problems += _unknown(name, values)
    if "bouncerd" not in texts and not problems:
        problems.append("[bouncerd]: is not there; accepted: a file with this section at least")
    files = Files(path, environ, now)
    known = {
        name: Section(name, texts.get(name, {}), DEFAULTS[_base(name)]) for name in _known(texts)
    }
    config = _config(path, known, files, instance)
    problems += [problem for section in known.values() for problem in section.problems]
    problems += read_section.overlaps(config.apns, config.fcm)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def _config(path: Path, known: Mapping[str, Section], files: Files, instance: str) -> Config:
    apns = [read_section.apns(known[name], files) for name in known if _base(name) == "apns"]
    fcm = [read_section.fcm(known[name], files) for name in known if _base(name) == "fcm"]
    return Config(
        path=path,
        bouncerd=read_section.bouncerd(known["bouncerd"], files, instance),
        limits=read_section.limits(known["limits"]),
        registration=read_section.registration(known["registration"]),
        entitlement=read_section.entitlement(known["entitlement"]),
        apns=tuple(filter(None, apns)),
        fcm=tuple(filter(None, fcm)),
        e2ee=read_section.e2ee(known["e2ee"], files),
        warnings=tuple(files.warnings),
        copies=tuple(files.copies),
    )


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: line {line}: not UTF-8; accepted: a UTF-8 file"]) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError([f"{path}: cannot be read ({reason})"]) from None


def _base(name: str) -> str:
    """Return what kind of section this is: [apns:NAME] is an [apns]."""
    base, colon, own = name.partition(":")
    return base if base in _REPEATABLE and (not colon or _OWN_NAME.fullmatch(own)) else name


def _known(texts: Sections) -> list[str]:
    """Name the sections to read: those that are always there, and those that the file has."""
    always = [name for name in DEFAULTS if name not in _REPEATABLE]
    return always + [name for name in texts if _base(name) in _REPEATABLE]


def _unknown(name: str, values: Mapping[str, str]) -> list[str]:
    base = _base(name)
    if base not in DEFAULTS:
        if (kind := name.partition(":")[0]) in _REPEATABLE:
            accepted = f"[{kind}], or [{kind}:NAME] of up to 40 letters, digits, dots, _ and -"
            return [f"[{plain(name)}]: unknown section; accepted: {accepted}"]
        known = [*DEFAULTS, *(f"{each}:NAME" for each in _REPEATABLE)]
        return [f"[{plain(name)}]: unknown section; {nearest(name, known)}"]
    return [
        f"[{name}] {plain(key)}: unknown key; {_meant(base, key)}"
        for key in values
        if key not in DEFAULTS[base]
    ]


def _meant(base: str, key: str) -> str:
    if base == "fcm" and key in _LEGACY_FCM_KEYS:
        return f"it {LEGACY_KEY}; name its file in credentials"
    home = next((name for name, keys in DEFAULTS.items() if key in keys), None)
    return f"accepted: in [{home}]" if home else nearest(key, DEFAULTS[base])
