"""A push bouncer: Zulip servers on one side, Apple's APNs and Google's FCM on the other."""

__version__ = "0.1.0"
