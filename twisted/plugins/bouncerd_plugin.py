"""What `twistd --help` lists: the daemon, and the stand-ins of Apple and Google."""

from twisted.application.service import ServiceMaker

bouncerd = ServiceMaker(
    "bouncerd",
    "bouncerd.tap",
    "A push bouncer: Zulip servers on one side, Apple's APNs and Google's FCM on the other.",
    "bouncerd",
)
bouncerd_fakes = ServiceMaker(
    "bouncerd-fakes",
    "bouncerd.fakes.tap",
    "Stand-ins of APNs, FCM and Google's token endpoint, for tests and demonstrations.",
    "bouncerd-fakes",
)
