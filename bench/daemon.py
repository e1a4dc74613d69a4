"""How many calls and pushes the whole daemon carries, per second of its own CPU time.

    python -m bench.daemon [--seconds 15] [--devices 1] [--callers 32]

`twistd bouncerd` with SQLite on CPU 0; HAProxy in Apple's place and wrk as the Zulip servers on
CPU 1. Each call is a real `push/notify` for a user with so many iPhones, answered after APNs
answered. Loopback only.
"""

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.apns_by_haproxy import haproxy
from bouncerd.fakes.credentials import KEY_ID, TEAM_ID
from bouncerd.model import Identity, Kind
from bouncerd.store.sqlite import SQLiteStore

ORG_ID, ORG_KEY = "5c1f8a52-3d0e-4b7e-9a51-0f2f6d1c7a10", "k" * 64
USERS = 5_000
PORT, ADMIN = 19090, 19091

SCRIPT = """
local n = 0
wrk.method = "POST"
wrk.headers["Authorization"] = "Basic {auth}"
wrk.headers["Content-Type"] = "application/json"
function request()
  n = (n + 7919) % {users}
  local body = string.format('{body}', n, n)
  return wrk.format(nil, "/api/v1/remotes/push/notify", nil, body)
end
"""
BODY = (
    '{"user_id": %d, "user_uuid": null, "realm_uuid": null, "gcm_payload": {}, "gcm_options":'
    ' {"priority": "high"}, "android_devices": [], "apple_devices": [], "apns_payload": {"alert":'
    ' {"title": "Iago", "subtitle": "", "body": "Wherefore art thou? Deny thy father and refuse'
    ' thy name; or, if thou wilt not, be but sworn"}, "sound": "default", "badge": 0, "custom":'
    ' {"zulip": {"server": "chat.example.org", "realm_id": 2, "realm_uri":'
    ' "https://chat.example.org", "realm_url": "https://chat.example.org", "realm_name":'
    ' "Example", "user_id": %d, "sender_id": 4, "sender_email": "iago@example.org", "time":'
    ' 1795338928, "recipient_type": "private", "message_ids": [101]}}}}'
)
INI = """[bouncerd]
listen = tcp:{port}:interface=127.0.0.1
admin_listen = tcp:{admin}:interface=127.0.0.1
store = sqlite:{directory}/bouncerd.db
[limits]
requests_per_minute = 1000000000
[registration]
check_email_domain = no
[entitlement]
free_users = unlimited
[apns]
topics = org.example.app
key_file = {key}
key_id = {key_id}
team_id = {team_id}
url = https://localhost:{apns}
ca_file = {ca}
"""


def populate(path: Path, devices: int) -> None:
    """Write a server and its users' phones."""
    from bouncerd.basicauth import digest  # noqa: PLC0415

    store = SQLiteStore(path, None, time.time)
    store.add_server(ORG_ID, "chat.example.org", "a@example.org", digest(ORG_KEY), time.time())
    for user in range(USERS):
        for number in range(devices):
            token = hashlib.sha256(f"{user}-{number}".encode()).hexdigest()
            identity = Identity(user, None)
            store.register(1, identity, Kind.APNS, token, "org.example.app", time.time())
    store.close()


def cpu(pid: int) -> float:
    """Return the user and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--callers", type=int, default=32)
    asked = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed (apt-get install wrk)")
    with tempfile.TemporaryDirectory() as name, haproxy(Path(name), 1) as running:
        directory = Path(name)
        populate(directory / "bouncerd.db", asked.devices)
        config, script = directory / "bouncer.ini", directory / "load.lua"
        config.write_text(
            INI.format(
                port=PORT, admin=ADMIN, directory=directory, apns=running.port,
                key=running.credentials.apns_key_file, key_id=KEY_ID, team_id=TEAM_ID,
                ca=running.credentials.ca_file,
            )
        )  # fmt: skip
        auth = base64.b64encode(f"{ORG_ID}:{ORG_KEY}".encode()).decode()
        script.write_text(SCRIPT.format(auth=auth, users=USERS, body=BODY))
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = ["taskset", "-c", "0", twistd, "-n", "--pidfile=", "bouncerd", "-c", str(config)]
        with (directory / "log").open("w") as log:
            daemon = subprocess.Popen(command, stderr=log)
        try:
            time.sleep(4)
            load = ["taskset", "-c", "1", wrk, "-t1", f"-c{asked.callers}", "--latency"]
            url = f"http://127.0.0.1:{PORT}"
            subprocess.run([*load, "-d2s", "-s", str(script), url], capture_output=True, check=True)
            before, pushed = cpu(daemon.pid), delivered()
            done = subprocess.run(
                [*load, f"-d{asked.seconds}s", "-s", str(script), url],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            used = cpu(daemon.pid) - before
            time.sleep(0.5)
            pushes = delivered() - pushed
            calls = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
            p99 = re.search(r"99%\s+(\S+)", done.stdout)
            print(
                f"{calls} calls, {pushes:.0f} pushes delivered in {used:.1f} CPU-seconds:"
                f" {calls / used:,.0f} calls and {pushes / used:,.0f} pushes per CPU-second,"
                f" {1e6 * used / calls:.0f} us a call; p99 {p99[1] if p99 else '?'} at saturation"
            )
            if "Non-2xx" in done.stdout:
                print(done.stdout)
        finally:
            daemon.terminate()
            daemon.wait()
            troubles = [
                line for line in (directory / "log").read_text().splitlines() if "error" in line
            ]
            print("\n".join(troubles[:3]))


def delivered() -> float:
    """Read how many pushes were delivered so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics") as page:
        for line in page.read().decode().splitlines():
            if line.startswith('bouncerd_pushes_ended_total{end="delivered",provider="apns"}'):
                return float(line.rpartition(" ")[2])
    raise SystemExit("no metrics")


if __name__ == "__main__":
    main()
