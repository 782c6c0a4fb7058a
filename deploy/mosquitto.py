"""Makes a Mosquitto configuration and its access list for one area, from the kids of its replicas.

Own port, own folder, no system service. Deny is the default; a user is a certificate's common name, so an agent can
write and read under its own kid only. The broker is not trusted all the same: everything it carries is signed.
"""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Sequence
from pathlib import Path

from firmware.wire import topics

PACKET_BYTES = 64 * 1024  # an envelope has 60 KiB at most
MEMORY_BYTES = 256 * 1024 * 1024
CONNECTIONS = 2000
QUEUED_MESSAGES = 100_000  # of a gateway that is away: a day of 60 points at one a minute
QUEUED_BYTES = 128 * 1024 * 1024
INFLIGHT = 100


def find() -> str | None:
    """Returns the path of the system's mosquitto, or None."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def configuration(folder: Path, listen: str, ca: Path) -> str:
    """Returns mosquitto.conf for a broker that lives in `folder` and listens on host:port with TLS."""
    host, port = listen.rsplit(":", 1)
    return f"""# made by gridseal gateway init; Mosquitto 2.0 or newer
user {getpass.getuser()}
per_listener_settings false
listener {port} {host}
cafile {ca}
certfile {folder / "broker.crt"}
keyfile {folder / "broker.key"}
require_certificate true
use_identity_as_username true
tls_version tlsv1.2
allow_anonymous false
set_tcp_nodelay true
acl_file {folder / "acl"}
max_packet_size {PACKET_BYTES}
memory_limit {MEMORY_BYTES}
max_connections {CONNECTIONS}
max_inflight_messages {INFLIGHT}
max_queued_messages {QUEUED_MESSAGES}
max_queued_bytes {QUEUED_BYTES}
persistent_client_expiration 14d
persistence true
persistence_location {folder}/
autosave_interval 300
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def access_list(area: str, replicas: list[bytes], operators: Sequence[bytes] = ()) -> str:
    """Returns the access list: every agent under its own kid, every replica the reverse; operators read alarms, send
    updates and hear what agents want of them."""
    lines = ["# made by gridseal gateway init; %u is the certificate's common name: the kid. Default: deny."]
    for kind in topics.AGENT_WRITES:
        lines.append(f"pattern write {topics.PREFIX}/{area}/%u/{kind}")
    for kind in topics.AGENT_READS:
        lines.append(f"pattern read {topics.PREFIX}/{area}/%u/{kind}")
    lines.append(f"pattern read {topics.PREFIX}/{area}/chain/#")
    for kid in replicas:
        lines += ["", f"user {kid.hex()}"]
        for kind in topics.AGENT_WRITES:
            lines.append(f"topic read {topics.PREFIX}/{area}/+/{kind}")
        for kind in topics.AGENT_READS:  # read as well: a replica looks whether another has published already
            lines.append(f"topic readwrite {topics.PREFIX}/{area}/+/{kind}")
        lines.append(f"topic readwrite {topics.PREFIX}/{area}/chain/#")
        lines.append(f"topic readwrite {topics.PREFIX}/{area}/live/#")
        lines.append(f"topic readwrite {topics.PREFIX}/{area}/alarm/#")
    for kid in operators:
        lines += ["", f"user {kid.hex()}", f"topic read {topics.PREFIX}/{area}/alarm/#",
                  f"topic write {topics.PREFIX}/{area}/+/update", f"topic read {topics.PREFIX}/{area}/+/query"]
    return "\n".join(lines) + "\n"
