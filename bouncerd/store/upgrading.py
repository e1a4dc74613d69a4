"""Bringing a PostgreSQL schema up to date, whichever of many processes is first.

A step is one transaction under a lock of ours, so it happens once and as a whole. Processes of
the release before go on meanwhile: a step only adds to what they know.
"""

from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from bouncerd.store.base import StoreError, StoreUnavailable
from bouncerd.store.dialect import for_postgresql
from bouncerd.store.session import Run
from bouncerd.store.steps import Step, newest

log = Logger()

_LOCK = 0x626F756E636572  # "bouncer": any number that other programs do not use
_PAUSE = 0.2  # seconds between looks whether another process is done

# One row: the version (0: none of our tables), whether other tables are here, where "here" is.
STATE = """
    SELECT to_regclass('schema_steps') IS NOT NULL,
           EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema()),
           current_setting('server_encoding')
"""
VERSION = "SELECT COALESCE(MAX(step), 0) FROM schema_steps"
# So a step does not make everybody wait behind it who waits for one long transaction.
_BEGIN = "BEGIN; SET LOCAL lock_timeout = '3s'; SET LOCAL statement_timeout = 0"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s)"
_RECORD = "INSERT INTO schema_steps (step, applied_at) VALUES (%s, %s)"


def judge(state: tuple[bool, bool, str]) -> bool:
    """Tell whether there is a version to ask for, by the row of STATE; StoreError if not ours."""
    ours, others, encoding = state
    if encoding != "UTF8":
        raise StoreError(f"the database's encoding is {encoding} and must be UTF8")
    if others and not ours:
        raise StoreError("a database with tables, but without bouncerd's")
    return ours


def missing(installed: int, steps: Sequence[Step]) -> list[Step]:
    """Return the steps to be run; a newer schema is a StoreError."""
    if installed > newest(steps):
        raise StoreError(
            f"its schema is version {installed} and this bouncerd knows only up to "
            f"{newest(steps)}: install the newer one again"
        )
    return [step for step in steps if step.number > installed]


async def bring_up_to_date(
    run: Run,
    steps: Sequence[Step],
    now: Callable[[], float],
    pause: Callable[[float], Awaitable[None]],
) -> None:
    """Create the schema or run what it lacks; StoreError if that cannot be."""
    told = False
    while missing(await _version(run), steps):
        await run(_BEGIN, ())
        try:
            [(locked,)] = await run(_TRY_LOCK, (_LOCK,))
            if locked:
                await _one_step(run, steps, now)
        except StoreError:
            await run("ROLLBACK", ())
            raise
        await run("COMMIT", ())
        if not locked:
            if not told:
                log.info("Waiting for another process that upgrades the store")
            told = True
            await pause(_PAUSE)


async def _version(run: Run) -> int:
    [state] = await run(STATE, ())
    if not judge(state):
        return 0
    [(installed,)] = await run(VERSION, ())
    return int(installed)


async def _one_step(run: Run, steps: Sequence[Step], now: Callable[[], float]) -> None:
    todo = missing(await _version(run), steps)
    if not todo:  # another process was faster
        return
    step = todo[0]
    log.info("Upgrading the store's schema to version {version}", version=str(step.number))
    try:
        await run(for_postgresql(step.sql).replace("%", "%%"), ())
    except StoreUnavailable as error:
        raise StoreError(
            f"schema step {step.number} failed ({error}); it stays at the step before"
        ) from None
    await run(_RECORD, (step.number, now()))
