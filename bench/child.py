"""What bench.daemon starts, and measures: bouncerd under twistd, or nothing but Klein.

    python bench/child.py --cpu 0 --socket 7 [--unlogged] [--profile FILE] twistd's arguments
    python bench/child.py --cpu 0 --socket 7 --klein

The socket is a listening one, inherited: several of these may share it.
"""

import argparse
import base64
import cProfile
import gc
import json
import os
import signal
import sys
from typing import Any

# As sd_listen_fds(3) has it.
_FIRST_PASSED = 3


def _pass_on(descriptor: int) -> None:
    """Give ourselves the socket as a supervisor does."""
    os.dup2(descriptor, _FIRST_PASSED, inheritable=True)
    os.set_blocking(_FIRST_PASSED, False)
    named = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
    os.environ.update(named)


def _unlogged() -> None:
    """Take out what logs, counts for the metrics and sums up, to see what it costs."""
    from bouncerd import logs, outcomes, site, summary, watch  # noqa: PLC0415

    def nothing(*_what: object) -> None:
        return None

    def heard(observer: logs.Observer, _event: object) -> None:
        observer._heard += 1  # it is looked at: nothing starts whose log goes elsewhere

    logs.Observer.__call__ = heard  # type: ignore[method-assign, assignment]
    for whose, name in (
        (site.Site, "note"),
        (summary.Summary, "tick"),
        (watch.Lag, "start"),
        (watch.Lag, "stop"),
    ):
        setattr(whose, name, nothing)
    outcomes.Outcomes.noting = lambda *_what: nothing  # type: ignore[method-assign]


def _profile_when_asked(path: str) -> None:
    """Profile from SIGUSR1 to SIGUSR2, which writes the file."""
    profile = cProfile.Profile()

    def begin(*_signal: object) -> None:
        profile.enable()

    def end(*_signal: object) -> None:
        profile.disable()
        profile.dump_stats(path)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)


def _klein() -> None:
    """Serve what does nothing but read a JSON body and a password: this machine's yardstick."""
    from klein import Klein  # noqa: PLC0415
    from twisted.internet import reactor as _reactor  # noqa: PLC0415
    from twisted.web.server import Site  # noqa: PLC0415

    reactor: Any = _reactor
    app = Klein()

    @app.route("/api/v1/remotes/push/notify", methods=["POST"])
    def notify(request: Any) -> bytes:
        words = request.getHeader(b"authorization").split()
        user, _, password = base64.b64decode(words[1]).partition(b":")
        body = json.loads(request.content.read())
        request.setHeader(b"Content-Type", b"application/json")
        known = bool(user and password)
        answer = {"result": "success", "msg": "", "user": body["user_id"], "known": known}
        return json.dumps(answer).encode()

    class Unlogged(Site):
        def log(self, _request: object) -> None:
            """Keep silent: an access log is none of Klein's work."""

    site = Unlogged(app.resource(), parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
    reactor.adoptStreamPort(_FIRST_PASSED, 2, site)
    gc.freeze()
    reactor.run()


def main() -> None:
    """Become what is to be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--unlogged", action="store_true")
    parser.add_argument("--klein", action="store_true")
    parser.add_argument("--profile", default="")
    asked, rest = parser.parse_known_args()
    os.sched_setaffinity(0, {asked.cpu})
    _pass_on(asked.socket)
    if asked.profile:
        _profile_when_asked(asked.profile)
    if asked.klein:
        _klein()
        return
    from twisted.scripts.twistd import run  # noqa: PLC0415

    if asked.unlogged:
        _unlogged()
    sys.argv = ["twistd", *rest]
    run()


if __name__ == "__main__":
    main()
