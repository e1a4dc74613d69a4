"""How often the same thing is said to an operator: now and then, however often it happens. Pure."""

#: Seconds between two alerts about one subject.
ALERT_EVERY = 600.0
_MOST_SUBJECTS = 100


class Seldom:
    """Remembers when it was last said; a bounded number of subjects."""

    def __init__(self, every: float = ALERT_EVERY) -> None:
        self._every = every
        self._said: dict[str, float] = {}

    def due(self, subject: str, now: float) -> bool:
        """Say whether it is time to say it (again); if so, take it as said."""
        if now < self._said.get(subject, float("-inf")) + self._every:
            return False
        self._said.pop(subject, None)  # so that the oldest comes first
        if len(self._said) >= _MOST_SUBJECTS:
            del self._said[next(iter(self._said))]
        self._said[subject] = now
        return True
