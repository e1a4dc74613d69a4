"""A configuration of bouncerd that points at the fakes."""

from bouncerd.fakes.apns import CERTIFICATE
from bouncerd.fakes.credentials import KEY_ID, TEAM_ID, Credentials

_TEXT = """\
; Points at the fakes in {directory}.

[bouncerd]
listen = {listen}
admin_listen = {admin_listen}
store = sqlite:{directory}/bouncerd.db

[registration]
check_email_domain = no

[entitlement]
free_users = unlimited

[apns]
topics = *
environment = {environment}
{identity}
url = {apns_url}
ca_file = {ca_file}

[fcm]
credentials = {account_file}
url = {fcm_url}
ca_file = {ca_file}
"""
_KEY = "key_file = {key_file}\nkey_id = {key_id}\nteam_id = {team_id}"


def configuration(
    credentials: Credentials,
    *,
    mode: str,
    environment: str,
    apns_url: str,
    fcm_url: str,
    listen: str = "tcp:9090:interface=127.0.0.1",
    admin_listen: str = "tcp:9091:interface=127.0.0.1",
) -> str:
    """Write a whole configuration file as text; all paths in it are absolute."""
    if mode == CERTIFICATE:
        identity = f"cert_file = {credentials.client_file}"
    else:
        key_file = credentials.apns_key_file
        identity = _KEY.format(key_file=key_file, key_id=KEY_ID, team_id=TEAM_ID)
    return _TEXT.format(
        directory=credentials.directory,
        listen=listen,
        admin_listen=admin_listen,
        environment=environment,
        identity=identity,
        apns_url=apns_url,
        fcm_url=fcm_url,
        ca_file=credentials.ca_file,
        account_file=credentials.account_file,
    )
