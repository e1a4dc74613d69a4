"""The connection's own frames, left to h2: preface, SETTINGS and PING, by its public calls.

The only module that knows h2.
"""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.exceptions import HyperframeError

from bouncerd.frames import MAX_HEADER_BLOCK, PROTOCOL_ERROR, ProtocolFault, frame


class Control:
    """What both sides have set, and the signs of life."""

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BLOCK,
            },
        )
        self._h2.initiate_connection()
        self.preface: bytes = self._h2.data_to_send()
        self.table_shrank = False  # by the latest SETTINGS
        self._table_size = self._h2.remote_settings.header_table_size
        #: How many streams the server allows at once (2^32+1 if it does not say), and how many
        #: bytes of body on a new one. Kept here: h2's look-ups cost more than a frame.
        self.max_streams = self._h2.remote_settings.max_concurrent_streams
        self.initial_window = self._h2.remote_settings.initial_window_size

    def received(self, kind: int, flags: int, payload: bytes) -> bytes:
        """Take a SETTINGS or PING frame of the server's; return our answer to it."""
        try:
            self._h2.receive_data(frame(kind, flags, 0, payload))
        except (H2Error, HyperframeError):
            raise ProtocolFault(PROTOCOL_ERROR, "SETTINGS or PING that h2 refuses") from None
        settings = self._h2.remote_settings
        self.max_streams = settings.max_concurrent_streams
        self.initial_window = settings.initial_window_size
        size = settings.header_table_size
        self.table_shrank = size < self._table_size
        self._table_size = size
        return self._h2.data_to_send()

    def ping(self) -> bytes:
        """Return a PING to write."""
        self._h2.ping(b"bouncerd")
        return self._h2.data_to_send()
