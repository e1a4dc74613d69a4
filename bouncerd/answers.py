"""What any service's answer may hold: a JSON object, and how long to wait.

Knows the standard library only. The bytes are a stranger's: nothing here raises, and nothing of
them goes on but what the callers compare with words that they know.
"""

import json
import math
import re
from email.utils import parsedate_to_datetime

#: The longest that we let ourselves be told to wait, in seconds (fcm.md 4.3).
LONGEST_WAIT = 3600.0
_SECONDS = re.compile(r"[0-9]{1,12}")


def json_object(body: bytes) -> dict[str, object]:
    """Return the JSON object that a body is; an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """Return a finite JSON number, also one in quotes; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def retry_after(value: bytes | None, now: float) -> float | None:
    """Read a Retry-After field: seconds from `now` (unix), at most an hour; None if unusable."""
    if value is None or len(value) > 64:
        return None
    text = value.decode("latin-1").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
    return min(max(date - now, 0.0), LONGEST_WAIT)
