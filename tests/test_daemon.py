"""The daemon as an operator meets it: start-up failures, health, privacy, signals."""

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from tests.house import ORG_KEY, House, a_message, free_port, reactor

Rent = Callable[..., House]

ROOT = Path(__file__).parent.parent


def twistd(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `twistd -n bouncerd …` to its end."""
    program = str(Path(sys.executable).with_name("twistd"))
    command = [program, "-n", "--pidfile=", "bouncerd", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )


def fails(house: House, words: str) -> None:
    """Assert that it ends by itself, with a non-zero status and one clear line."""
    done = twistd("-c", str(house.config_file))
    assert done.returncode == 1, done
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (line,) = [line for line in lines if line["level"] == "critical"]
    assert line["message"].startswith(f"Cannot start: {words}"), line


def test_a_taken_port(rent: Rent) -> None:
    """A port that another program has is one clear line and exit status 1."""
    house = rent()
    with socket.socket() as other:
        other.bind(("127.0.0.1", house.port))
        other.listen()
        fails(house, f"listen: tcp:{house.port}:interface=127.0.0.1: Address already in use")


def test_a_store_that_cannot_be_written(rent: Rent) -> None:
    """A store in a directory that is not there is one clear line and exit status 1."""
    house = rent()
    house.ini = house.ini.replace(str(house.store_file), "/nonexistent/bouncerd.db")
    fails(house, "store: ")


def test_a_store_of_a_newer_version(rent: Rent) -> None:
    """A database that a newer bouncerd has written is left alone."""
    house = rent()
    store = house.store_file
    house.ini = f"[bouncerd]\nlisten = tcp:{house.port}\nadmin_listen =\nstore = sqlite:{store}\n"
    child = house.launch()
    wait_for(lambda: store.exists() and "Serving" in house.log())
    child.send_signal(signal.SIGTERM)
    child.wait(10)
    with sqlite3.connect(store) as database:
        (table,) = [
            name
            for (name,) in database.execute("select name from sqlite_master where type = 'table'")
            if "step" in name
        ]
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        newest = f"select max({columns[0]}) from {table}"
        database.execute(f"update {table} set {columns[0]} = 9999 where {columns[0]} = ({newest})")
    fails(house, "store: ")


def test_a_second_daemon_on_one_store(rent: Rent) -> None:
    """SQLite is for one process; a second one says so and ends."""
    house = rent()
    house.ini = house.ini[: house.ini.index("[apns]")]
    house.launch()
    wait_for(lambda: "Serving" in house.log())
    first_port = house.port
    house.ini = house.ini.replace(str(first_port), str(free_port()))
    house.ini = house.ini.replace(str(house.admin_port), str(free_port()))
    fails(house, "store: ")


def test_mistakes_are_told_all_at_once(tmp_path: Path) -> None:
    """`--check` names every mistake, each with section and key, and exits with 1."""
    config = tmp_path / "bouncer.ini"
    config.write_text("[bouncerd]\nlissten = tcp:1\nanswer_within = 99\n[apns]\ntopics = a b\n")
    done = twistd("--check", "-c", str(config))
    assert done.returncode == 1
    assert "[bouncerd] lissten" in done.stderr
    assert "listen" in done.stderr
    assert "[bouncerd] answer_within" in done.stderr
    assert "[apns]" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_good_file(rent: Rent) -> None:
    """`--check` of a good file says so, exits with 0, and starts nothing."""
    house = rent()
    done = twistd("--check", "-c", str(house.config_file))
    assert (done.returncode, "fine" in done.stdout) == (0, True), done
    assert not house.store_file.exists()


def test_check_warns_of_the_store(rent: Rent) -> None:
    """`--check` says beforehand where the store would not open."""
    house = rent()
    house.ini = house.ini.replace(str(house.store_file), "/nonexistent/bouncerd.db")
    done = twistd("--check", "-c", str(house.config_file))
    assert (done.returncode, "its directory is not there" in done.stderr) == (0, True), done
    address = f"postgresql://a:canary@127.0.0.1:{free_port()}/c"
    house.ini = house.ini.replace("sqlite:/nonexistent/bouncerd.db", address)
    done = twistd("--check", "-c", str(house.config_file))
    assert (done.returncode, "store: connection refused" in done.stderr) == (0, True), done
    assert "canary" not in done.stderr


def test_check_without_a_driver(rent: Rent) -> None:
    """A store that no start could open, since its driver is not installed, is a mistake."""
    house = rent()
    house.ini = house.ini.replace(f"sqlite:{house.store_file}", "postgresql://a:canary@b/c")
    program = "import sys; sys.modules['txpostgres'] = None;"
    program += "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", program, "bouncerd", "--check", "-c", str(house.config_file)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )
    assert (done.returncode, "bouncerd[postgresql]" in done.stderr) == (1, True), done
    assert "fine" not in done.stdout
    assert "canary" not in done.stderr


def test_in_the_background(rent: Rent) -> None:
    """Without -n it daemonizes, writes a pid file and its log, and ends on SIGTERM."""
    house = rent()
    house.ini = house.ini[: house.ini.index("[apns]")]
    pid_file, log = house.directory / "pid", house.directory / "twistd.log"
    program = str(Path(sys.executable).with_name("twistd"))
    options = [f"--pidfile={pid_file}", f"--logfile={log}", f"--rundir={house.directory}"]
    command = [program, *options, "bouncerd", "-c", str(house.config_file)]
    started = subprocess.run(command, timeout=30, cwd=ROOT, check=False)
    assert started.returncode == 0
    try:
        wait_for(lambda: log.exists() and "Serving" in log.read_text())
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_for(lambda: not pid_file.exists())


def test_in_the_background_in_vain(rent: Rent) -> None:
    """What cannot start there is exit status 1 and a line in the log, and no pid file stays."""
    house = rent()
    house.ini = house.ini.replace(str(house.store_file), "/nonexistent/bouncerd.db")
    pid_file, log = house.directory / "pid", house.directory / "twistd.log"
    program = str(Path(sys.executable).with_name("twistd"))
    options = [f"--pidfile={pid_file}", f"--logfile={log}", f"--rundir={house.directory}"]
    command = [program, *options, "bouncerd", "-c", str(house.config_file)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )
    assert (done.returncode, "Cannot start: store" in log.read_text()) == (1, True), done
    assert not pid_file.exists()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until it is so, or fail."""
    by = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < by, "not in time"
        time.sleep(0.02)


def served(house: House) -> socket.socket:
    """Wait until a request is answered: before that, signals are not heeded; return who asked."""
    wait_for(lambda: "Serving" in house.log())
    caller = socket.create_connection(("127.0.0.1", house.port), 10)
    caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caller.recv(65_536).startswith(b"HTTP/1.1 ")
    return caller


@pytest_twisted.ensureDeferred
async def test_a_provider_that_is_down_at_the_start(rent: Rent) -> None:
    """The daemon starts, says which provider is down and why, and delivers when it is back."""
    house = rent()
    apns, port = house._ports[0], house.apns_port
    await apns.stopListening()
    child = house.launch()
    health: dict[str, Any] = {}
    for _ in range(200):
        assert child.poll() is None, house.log()
        try:
            status, health = await house.health()
        except ConnectError:
            status, health = 0, {}
        if status == 200 and "refused" in str(health["providers"]["apns"]["why"]):
            break
        await deferLater(reactor, 0.05)
    assert health["ready"] is True, health
    assert health["providers"]["apns"]["state"] == "down"
    await house.enrol()
    await house.add_phone("ab" * 32, 1)
    status, answer = await house.call("push/notify", body=a_message())
    assert (status, answer["total_apple_devices"]) == (200, 1)
    context = house.credentials.context()
    house._ports[0] = house.apns.listen(reactor, context, port)
    for _ in range(200):
        if house.apns.ledger.accepted():
            break
        await deferLater(reactor, 0.05)
    assert len(house.apns.ledger.accepted()) == 1
    assert "is not reached: connection refused" in house.log()


@pytest_twisted.ensureDeferred
async def test_content_leaves_no_trace(rent: Rent) -> None:
    """A canary in each field of content is in no log, file or answer, whatever goes wrong."""
    house = rent()
    await house.start()
    await house.enrol()
    for prefix in ("aa410", "aa413", "aa500", "aa0c1", "abcde"):
        await house.add_phone(prefix + "1" * 59, 1)
    for token in ("fcm-invalid-1", "fcm-500-1", "fcm-auth-1", "good"):
        await house.add_phone(token, 2)
    canary = secrets.token_hex(12)
    body = a_message(canary)
    for payload in ("gcm_payload", "apns_payload"):
        body[payload] = _poisoned(body[payload], canary)
    answers = [await house.call("push/notify", body=body)]
    answers.append(await house.call("push/notify", body={**body, "gcm_options": {canary: 1}}))
    answers.append(await house.call("push/notify", body={**body, "user_id": canary}))
    answers.append(await house.call("push/notify", body=b'{"gcm_payload": "' + canary.encode()))
    answers.append(await house.call("push/notify", body=canary.encode() + b"\xff"))
    odd = {**body, "gcm_payload": {**body["gcm_payload"], "deep": [{canary: canary}] * 500}}
    answers.append(await house.call("push/notify", body=odd))
    assert answers[0][0] == 200
    quoted = [answer for _, answer in answers if canary in str(answer)]
    # The reference repeats an unknown option's name to its sender; nothing else comes back.
    assert all("Invalid GCM options to bouncer" in answer["msg"] for answer in quoted), quoted
    await deferLater(reactor, 0.3)
    await house.stop()
    for file in house.directory.rglob("*"):
        if file.is_file():
            assert canary.encode() not in file.read_bytes(), file
    assert ORG_KEY not in house.log()
    assert ORG_KEY.encode() not in house.store_file.read_bytes()


def _poisoned(payload: object, canary: str) -> object:
    """Put the canary into every text of a payload."""
    if isinstance(payload, dict):
        return {key: _poisoned(value, canary) for key, value in payload.items()}
    keep = payload in ("message", "private")
    return f"{payload} {canary}" if isinstance(payload, str) and not keep else payload


@pytest_twisted.ensureDeferred
async def test_sigterm_finishes_what_is_in_flight(rent: Rent) -> None:
    """A call that is being worked on when SIGTERM comes still gets its answer."""
    house = rent()
    house.apns.latency = (0.5, 0.6)
    await house.start()
    await house.enrol()
    await house.add_phone("ab" * 32, 1)
    answer = Deferred.fromCoroutine(house.call("push/notify", body=a_message()))
    await deferLater(reactor, 0.2)
    assert await house.stop() == -signal.SIGTERM
    status, _ = await answer
    assert status == 200
    assert "In all through apns: 1 delivered" in house.log()


def test_asked_to_stop_twice(rent: Rent) -> None:
    """A second signal changes nothing, and is no fault: it ends when it has finished."""
    house = rent()
    house.ini = house.ini[: house.ini.index("[apns]")]
    child = house.launch()
    with served(house) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\n")  # and no more: it is asked to come again
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            child.send_signal(number)
            wait_for(lambda: "Stopping" in house.log())
        assert caller.recv(100).startswith(b"HTTP/1.1 503")
    assert child.wait(10) == -signal.SIGTERM
    assert '"critical"' not in house.log()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ends_by_signals(rent: Rent, signal_number: int) -> None:
    """It ends within seconds by either signal, with nothing to do."""
    house = rent()
    house.ini = house.ini[: house.ini.index("[apns]")]
    child = house.launch()
    served(house).close()
    child.send_signal(signal_number)
    child.wait(5)
    assert "Stopping" in house.log()
