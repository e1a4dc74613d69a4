"""The daemon as it is observed from outside: levels by signal, alerts by a real program."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import deferLater

from tests.house import House, a_message, reactor

Rent = Callable[..., House]
ROOT = Path(__file__).parent.parent
TOKEN = "ab" * 32


@pytest.mark.parametrize(
    "command",
    [
        ["twistd", "-n", "--pidfile=", "--logger=twisted.logger.textFileLogObserver", "bouncerd"],
        ["twist", "bouncerd"],
    ],
)
def test_another_log(rent: Rent, command: list[str]) -> None:
    """What would log past our rules does not start, and says so."""
    house = rent()
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [program, *command[1:], "-c", str(house.config_file)],
        capture_output=True, text=True, timeout=30, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "--logger" in done.stdout + done.stderr
    assert not house.store_file.exists()
    assert not (ROOT / "twistd.log").exists()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it is so."""
    for _ in range(1000):
        if condition():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("not in time")


async def lines_of_a_push(house: House) -> tuple[int, int]:
    """Reload, push, and return how many lines there are of pushes and of calls."""
    assert house.child is not None
    assert house.config_file.exists()
    before = house.log().count("Reloaded")
    house.child.send_signal(signal.SIGHUP)
    await until(lambda: house.log().count("Reloaded") > before)
    written = len(house.log())
    assert (await house.call("push/notify", body=a_message("canary")))[0] == 200
    modules = [json.loads(line)["module"] for line in house.log()[written:].splitlines()]
    return modules.count("bouncerd.outcomes"), modules.count("bouncerd.site")


@pytest_twisted.ensureDeferred
async def test_level_by_signal(rent: Rent) -> None:
    """SIGHUP brings a line for each call and push, and takes them away; tokens stay out."""
    house = rent()
    await house.start()
    await house.enrol()
    await house.add_phone(TOKEN, 1)
    plain = house.ini
    house.ini = plain.replace("[registration]", "log_level = verbose\n[registration]", 1)
    assert await lines_of_a_push(house) == (1, 1), house.log()
    house.ini = plain
    assert await lines_of_a_push(house) == (0, 0), house.log()
    assert TOKEN not in house.log()
    assert "canary" not in house.log()
    url = f"http://127.0.0.1:{house.admin_port}/metrics"
    page = await (await treq.get(url, agent=house._agent, timeout=5)).text()
    names = {family.name for family in text_string_to_metric_families(page)}
    assert "bouncerd_push_outcomes" in names
    assert TOKEN not in page
    assert "canary" not in page


@pytest_twisted.ensureDeferred
async def test_alert_command(rent: Rent, tmp_path: Path) -> None:
    """A reload that is refused runs the operator's program, with our words."""
    house = rent()
    told = tmp_path / "told"
    script = tmp_path / "notify.py"
    script.write_text(f"import sys\nopen({str(told)!r}, 'w').write('|'.join(sys.argv[1:]))\n")
    command = f"alert_command = '{sys.executable}' -I '{script}'\n"
    house.ini = house.ini.replace("[registration]", f"{command}[registration]", 1)
    house.ini = house.ini[: house.ini.index("[apns]")]
    child = house.launch()
    await until(lambda: "Serving" in house.log())
    house.ini += "[limits]\nqueue = canary\n"
    assert house.config_file.exists()
    child.send_signal(signal.SIGHUP)
    await until(lambda: told.exists() and told.read_text())
    assert told.read_text().startswith("reload-failed|configuration|")
