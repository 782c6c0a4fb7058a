"""Makes the gateway's half of row 3 in a process of its own: broker to durable envelope, nothing ordered.

    python -m tests.bench.inlet REPLICA_FOLDER COUNT [BROKER_URL]

Subscribes at that broker, or at those of its configuration, takes COUNT envelopes through
the real ingest and ledger, acknowledges each when it is durable, and prints what that took. With COUNT 0 it only leaves
its subscription with the broker.
"""

import asyncio
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.clock import SystemClock
from gateway import collector
from gateway.config import load_gateway
from gateway.ingest.checker import Domain
from gateway.ingest.ingest import Ingest, Settings
from gateway.ingest.mqtt import Brokers, TlsFiles
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader

BOUND_S = 120.0
LOOK_S = 0.01  # between two looks whether it is done: some 1 % of what is measured


async def run(home: Path, count: int, url: str = "") -> dict[str, float]:
    """Seconds of CPU and wall from the connection on, and how many durable writes it took."""
    collector.calm()  # as in a replica's process (`gateway.node.run`)
    config, clock = load_gateway(home), SystemClock()
    ledger = Ledger.open(config.data, config.genesis.read_bytes())
    reader, pool, loop = Reader.open(config.data), ThreadPoolExecutor(1, "ledger"), asyncio.get_running_loop()
    writes, offered = [0], [0]

    async def in_ledger(function, *arguments):
        writes[0] += 1
        return await loop.run_in_executor(pool, function, *arguments)

    def submit(offers) -> None:
        offered[0] += len(offers)

    ingest = Ingest(Settings(Domain(config.area, ledger.chain_id, ledger.parameters), 0, 1), reader, ledger, clock,
                    in_ledger=in_ledger, submit=submit, forget=lambda keys: None)
    tls = TlsFiles(str(config.ca), str(config.tls_cert), str(config.tls_key))
    brokers = Brokers([url] if url else config.brokers, home.name, ingest.subscriptions(), ingest.offer, clock=clock,
                      chance=random.Random(1), tls=tls, on_state=ingest.broker_changed)
    await ingest.start(brokers)
    writes[0] = 0
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    brokers.start()
    link = brokers.links[0]
    while not (link.subscribed and offered[0] >= count and not link.status()["undone"]):
        if time.perf_counter() - wall_s > BOUND_S:
            raise TimeoutError(f"{offered[0]} of {count}: {link.status()} {ingest.status()['refused']}")
        await asyncio.sleep(LOOK_S)
    found = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s, "writes": writes[0],
             "offered": offered[0]}
    await asyncio.to_thread(brokers.stop)
    await ingest.stop()
    pool.shutdown()
    reader.close()
    ledger.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))))
