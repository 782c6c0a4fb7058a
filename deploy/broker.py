"""Makes a broker for an area from what is there: Mosquitto where it is installed, else the embedded one (amqtt).

The embedded one is for demonstrations: loopback, MQTT 3.1.1, no TLS, no access list. It forgets queued messages, which
harms nothing here, because a meter forgets nothing before the ledger's ack.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from deploy import mosquitto
from deploy.supervisor import Program


def program(home: Path) -> Program:
    """Returns what runs the broker of `home` (a broker-K folder); FileNotFoundError when nothing can."""
    address = (home / "address").read_text().strip()
    if address.startswith("mqtts://"):
        binary = mosquitto.find()
        if binary is None:
            raise FileNotFoundError("this area's broker is Mosquitto, which is not installed: "
                                    "sudo apt install mosquitto")
        return Program(home.name, "broker", home, [binary, "-c", str(home / "mosquitto.conf")])
    return Program(home.name, "broker", home, [sys.executable, "-P", "-m", "deploy.broker", address])


def has_embedded() -> bool:
    """Tells whether the embedded broker's package is there (the extra `demo`)."""
    try:
        import amqtt  # noqa: F401
    except ImportError:
        return False
    return True


async def serve(address: str) -> None:
    """Runs the embedded broker on mqtt://host:port until SIGTERM or SIGINT."""
    from amqtt.broker import Broker
    from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
    parts = urlsplit(address)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = ListenerConfig(type=ListenerType.TCP, bind=f"{parts.hostname}:{parts.port}")
    broker = Broker(BrokerConfig(
        listeners={"default": listener},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}))
    await broker.start()
    print(f"embedded broker on {address}: no TLS, no access list, for demonstrations", flush=True)
    await stop.wait()
    await broker.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.broker", description=__doc__)
    parser.add_argument("address", help="mqtt://127.0.0.1:port")
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(parser.parse_args().address))
    return 0


if __name__ == "__main__":
    sys.exit(main())
