"""What every test shares: a seeded, bounded hypothesis profile."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "bouncerd",
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bouncerd")
