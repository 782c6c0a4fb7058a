"""Makes one replica process: ledger, consensus, peers, ingest from the brokers and the page, joined in one event loop.

    brokers -> ingest -items-> driver -> Replica -duties-> votes file, peers, ledger -blocks-> ingest -acks-> brokers

The order of starting is the order of trust: first the data folder is locked (two processes with one key would vote
twice), then ledger and votes file are opened and checked, then the replica says what it must, and only then meters and
people are let in. A broker, a peer or an input that fails stops nothing; a disk or a program that fails ends the
process, and whoever runs it starts it again: kill -9 is a normal way to end.
"""

import asyncio
import fcntl
import json
import logging
import os
import random
import time
from pathlib import Path
from typing import IO, Any

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import topics
from firmware.wire.certificate import faults, quorum
from firmware.wire.errors import Refused
from firmware.wire.identity import kid_of
from firmware.wire.state import replica_record
from gateway import collector
from gateway.alarms import Alarms
from gateway.api import views
from gateway.api.app import make_app
from gateway.api.server import HttpServer
from gateway.boots import Boots
from gateway.config import ConfigError, GatewayConfig, split_address
from gateway.connection import tls_contexts
from gateway.consensus.keys import CoseKeys
from gateway.consensus.observer import Observer
from gateway.consensus.replica import Replica
from gateway.consensus.types import Executed, Head, Now, Settings
from gateway.devices import Devices
from gateway.driver import Clock, Driver
from gateway.duties import Again, Duties
from gateway.ingest import ingest as ingest_room
from gateway.ingest import verify
from gateway.ingest.checker import Domain
from gateway.ingest.mqtt import Brokers, TlsFiles
from gateway.ledger.ledger import Ledger
from gateway.ledger.votes import VoteLog
from gateway.member import Member
from gateway.membership import Membership
from gateway.scrub import Scrub
from gateway.seats import PEERS, addresses_of, read_peers, take_seat
from gateway.starts import Starts, check_mark
from gateway.stores import ReaderThread, Stores
from gateway.transport import Mesh, Transport

logger = logging.getLogger("gridseal.node")

VOTES, RUN, LOCK, EVIDENCE = "votes.log", "run.json", "lock", "evidence.cbor"  # beside the ledger's own files


async def run(config: GatewayConfig, clock: Clock, stop: asyncio.Event) -> None:
    """Runs a replica until `stop` is set. Raises what must end the process: ConfigError, OSError and Damaged when it
    cannot start, Broken when something failed later."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    collector.calm()
    while not stop.is_set():
        try:
            await _live(Node(config, clock), stop)
        except Again as again:
            logger.warning("begins again: %s", again)


async def _live(node: "Node", stop: asyncio.Event) -> None:
    """One life of a replica; Again when another follows in the same process."""
    waiting: list[asyncio.Future[Any]] = []
    try:
        await node.start()
        waiting = [asyncio.ensure_future(stop.wait()), node.driver.failed, node.ingest.failed]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            _end(one)
    finally:
        if waiting:
            waiting[0].cancel()
        await node.stop()


class Broken(Exception):
    """Something failed at work (a disk, or this program): whoever runs the process starts it again."""


def _end(ended: "asyncio.Future[Any]") -> None:
    try:
        ended.result()
    except Again:
        raise
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


class Node:
    """One replica; `start`, then `stop`. It is the page's `Source`."""

    def __init__(self, config: GatewayConfig, clock: Clock):
        self._config, self._clock = config, clock
        self._closers: list[Any] = []  # what `stop` undoes, last first
        self._tasks: list[asyncio.Task[None]] = []
        self.started_ms = clock.now_ms()

    async def start(self) -> None:
        """Everything, in the order of trust."""
        self._lock_folder()
        self._boots = Boots(self._config.file.parent, self._config.data)
        self._boots.check()
        check_mark(self._config.data, logger.error)
        self._open_ledger()
        self._boots.check_reached(self.ledger.stand().n)
        self._boots.start()
        await self._join()
        await self.transport.start(self._config.listen)
        self._closers.append(self.transport.close)
        self.driver.start()
        for channel, height in self.replica.open_heights:
            if self.stores.own.certificate(channel, height) is not None:
                self.driver.note_certificate(channel, height)
        self.driver.vote_again(await self.driver.in_ledger(self.duties.lost_certificates))
        await self.ingest.start(self.brokers)
        self._closers.append(self.ingest.stop)
        self._tell_certified()
        self.brokers.start()
        self._closers.append(lambda: asyncio.to_thread(self.brokers.stop))
        self._start_fetching()
        self.devices.start()
        self.http = HttpServer(make_app(self), *split_address(self._config.api))
        self.http.start()
        self._closers.append(self.http.close)
        self._write_run()
        logger.info("%s %d of %d, epoch %d, chain %s, n %d, page http://%s/",
                    "observer" if self.seat.index is None else "replica", self.index, len(self.seat.members),
                    self.seat.epoch, self.ledger.chain_id.hex(), self.ledger.stand().n, self.http.address)

    async def stop(self) -> None:
        """Undoes what was started; nothing that was promised depends on it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in reversed(self._closers):
            try:
                ended = close()
                if asyncio.iscoroutine(ended):
                    await ended
            except Exception:
                logger.exception("while stopping")

    # what the page shows

    def status(self) -> dict[str, Any]:
        """The replica now."""
        shown = self.ingest.status()
        stand, replica = self.ledger.stand(), self.replica
        channel, height, header_hash = stand.heads[0]
        blocks, seals, readings, transactions, refused_in_blocks = stand.counts
        standing = views.Standing(
            index=self.index, pid=os.getpid(), folder=str(self._config.file.parent), area=self._config.area,
            chain_id=self.ledger.chain_id, speed=self.ledger.speed, started_ms=self.started_ms,
            now_ms=self._clock.now_ms(), kids=[member.kid for member in self.seat.members],
            connected=self.transport.connected(), view=replica.view, active=replica.active, primary=replica.primary,
            n=stand.n, low=replica.low, height=height, header_hash=header_hash, state_root=stand.state_root,
            certified_height=self.ingest.certified_height, readings=readings, seals=seals, transactions=transactions,
            marked=views.marks(stand.marks), refused=shown["refused"], refused_by_agent=shown["refused_by_agent"],
            refused_in_blocks=refused_in_blocks, peers_refused=self.transport.refused + self.duties.exchange.refused,
            consensus_refused=replica.refused, pending=replica.pending, newest_ms=self._newest_ms(),
            brokers=shown["brokers"], points=self.stores.points(), bytes_written=bytes_written(),
            votes_bytes=(self._config.data / VOTES).stat().st_size, halted=replica.is_halted,
            alarms=list(self.driver.alarms))
        result = views.status(standing)
        result.update({name: shown[name] for name in (
            "replays", "flagged", "held", "unanswered", "inbox", "witnesses")})
        result.update(waits_for=self.starts.waits_for, epoch=self.seat.epoch, kid=self._member.kid.hex(),
                      is_member=self.seat.index is not None,
                      offered=[offer.member.kid.hex() for offer in self.membership.offers])
        result.update(blocks_lacking=self.duties.missing.blocks_lacking, api=self.http.address,
                      listen=self.transport.listen, frames_dropped=self.transport.dropped(),
                      votes_written=self.driver.commits, alarms_raised=self.alarms.raised(),
                      scrub=self.scrub.status())
        return result

    def is_ready(self) -> bool:
        """Takes part, with enough others to decide. One that alone waits for the next view (`active` is false in the
        status) is ready: it ingests and executes, and votes again as soon as a second one asks for that view."""
        if isinstance(self.replica, Observer):
            return self.replica.is_level
        members = [index for index in self.transport.connected() if index < len(self.seat.members)]
        return (not self.replica.is_halted and self.starts.is_admitted
                and len(members) + 1 >= self.duties.quorum())

    async def devices_shown(self) -> list[dict[str, Any]]:
        return await self.stores.of_state(self.devices.views)

    async def market(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self.stores.market(slot_s)

    async def settlement(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self.stores.settlement(slot_s)

    async def accounts(self) -> dict[str, Any]:
        return await self.stores.accounts()

    async def block(self, channel: str, height: int) -> dict[str, Any] | None:
        return await self.stores.block(channel, height)

    async def transaction(self, payload_hash: bytes) -> dict[str, Any] | None:
        return await self.stores.transaction(payload_hash)

    # parts

    def _lock_folder(self) -> None:
        """One process per key: a second one would vote a second time."""
        data = self._config.data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock: IO[str] = open(data / LOCK, "w")  # noqa: SIM115  held until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise OSError(f"another process runs this replica ({data})") from error
        self._closers.append(lock.close)

    def _open_ledger(self) -> None:
        config = self._config
        try:
            genesis = config.genesis.read_bytes()
            signer = OpenSSLSigner.load(config.signing_key)
            self._contexts = tls_contexts(config.tls_cert, config.tls_key, config.ca)
        except (OSError, ValueError) as error:
            raise ConfigError(config.file, 0, "genesis, keys", "files that can be read", str(error)) from error
        started = time.monotonic()
        try:
            self.ledger = Ledger.open(config.data, genesis, self._check_signature, config.database)
        except ModuleNotFoundError as error:
            raise ConfigError(config.file, 0, "database", "psycopg (pip install gridseal[postgres])",
                              f"no module {error.name}") from error
        self._closers.append(self.ledger.close)
        self.votes = VoteLog(config.data / VOTES)
        self._closers.append(self._close_votes)
        founders = self.ledger.genesis_members
        if len(founders) > 1 and len(config.peers) != len(founders):
            raise ConfigError(config.file, 0, "peers", f"{len(founders)} addresses, one per member of the genesis",
                              str(len(config.peers)))
        self.seat = take_seat(self.ledger, self.votes, signer.public_key(), config.data)
        self._addresses = {member.kid: address for member, address in zip(founders, config.peers)}
        self._addresses.update(addresses_of(read_peers(config.file.parent)))
        self.index, kid = self.seat.place, kid_of(signer.public_key())
        if self.seat.index is None and kid not in self._addresses:
            raise ConfigError(config.file, 0, "signing_key", "the key of a member, or of one who is offered a seat "
                              "in " + PEERS, "another")
        own = signer if self.seat.index is not None else None
        self._keys = CoseKeys(own, self.seat.members, self.ledger.chain_id, verify_digest)
        self._member = Member(signer, kid, self.ledger.chain_id, self.ledger.channels[0])
        self.stores = Stores(self.ledger, config.data)
        self._closers.append(self.stores.close)
        logger.info("ledger open after %.1f s, votes file cut by %d bytes", time.monotonic() - started,
                    self.votes.cut_bytes)

    async def _join(self) -> None:
        """Replica, driver, duties, ingest, peers, brokers: made and made known to each other."""
        config, ledger = self._config, self.ledger
        stand, seat, members = ledger.stand(), self.seat, self.seat.members
        self.duties = Duties(ledger, self.stores, config.data, self._boots, config.transfer_after, seat.epoch)
        now = Now(self._clock.now_ms(), self._clock.monotonic_ms())
        executed = Executed(stand.n, stand.state_root, [Head(*head) for head in stand.heads], stand.time_s,
                            ledger.deadline_s(), ledger.is_ending(seat.epoch))
        begun = ledger.epochs[seat.epoch]
        settings = Settings(seat.epoch, members, self.index, ledger.chain_id, ledger.parameters, ledger.channels[0],
                            base=begun.base, floors=dict(begun.heights))
        self.replica: Replica | Observer
        if seat.index is None:
            self.replica = Observer(settings, self._keys, executed)
        else:
            self.replica = Replica(settings, self._keys, verify.item_key, executed, seat.records, now=now)
        self.driver = Driver(self.replica, self.votes, self.duties, self._clock, stand.n)
        self._closers += [self.duties.exchange.close, self.driver.stop]
        domain = Domain(config.area, ledger.chain_id, ledger.parameters, ledger.channels[:1],
                        {one.kid: replica_record(one.kid, one.public_key, config.area) for one in members})
        self.ingest = ingest_room.Ingest(
            ingest_room.Settings(domain, self.index, len(members), config.ack_interval_s * 1000), self.stores.own,
            ledger, self._clock, in_ledger=self.driver.in_ledger, submit=self.duties.submit,
            forget=self.driver.forget, evidence=config.data / EVIDENCE, alarm=self._found_evidence)
        hashes = [member.tls_hash for member in members] + [bytes(32)] * (seat.index is None)
        addresses = [self._addresses.get(member.kid, "") for member in members] + [""]
        mesh = Mesh(self.index, hashes, addresses, ledger.parameters["frame_bytes"])
        self.transport = Transport(mesh, self._contexts, self.duties.framed, self._peer_changed)
        self.duties.join(self.driver, self.ingest, self.transport)
        kids = [member.kid for member in members]
        self.starts = self.duties.starts = Starts(
            config.data, kids, seat.index, faults(len(members)), quorum(len(members)), self._boots.boots,
            os.urandom(8))
        self.membership = Membership(config.file.parent, seat, ledger, self._member, self._clock, config.listen,
                                     self.starts)
        self.membership.join(self.driver, self.duties.exchange, self.transport, self.replica,
                             self.ingest.submit_transaction, self._publish_handover)
        self.alarms = Alarms(config.area, self.index, self._clock, self._publish_alarm)
        self.devices = self.duties.devices = Devices(
            config.devices, config.file.parent, ledger, self.stores.own, self._member, self._clock, self.alarms,
            self.ingest, self.duties.exchange, in_ledger=self.driver.in_ledger, connected=self.transport.connected,
            spawn=self.driver.spawn)
        tls = TlsFiles(str(config.ca), str(config.tls_cert), str(config.tls_key))
        self.brokers = Brokers(config.brokers, self._member.kid.hex(), self.ingest.subscriptions(),
                               self.ingest.offer, clock=self._clock, chance=random.Random(), tls=tls,
                               on_state=self.ingest.broker_changed)

    def _publish_alarm(self, topic: str, payload: bytes) -> None:
        self.brokers.publish(topic, payload, retain=True)

    def _publish_handover(self, epoch: int, data: bytes) -> None:
        self.brokers.publish(topics.chain_epoch(self._config.area, self.ledger.channels[0], epoch), data, retain=True)

    def _found_evidence(self, text: str) -> None:
        """Evidence against somebody: for the log, the page, and whoever listens to alarms."""
        self.driver.alarm(text)
        self.alarms.note("evidence", text, views.time_text(self._clock.now_ms()))

    def _tell_certified(self) -> None:
        """What is certified was certified before this start, too."""
        for channel, height, _ in self.ledger.stand().heads:
            lost = set(self.stores.own.uncertified(channel))
            while height in lost:
                height -= 1
            if height:
                self.ingest.certified(channel, height)

    def _close_votes(self) -> None:
        """After a write that failed the file stays as the disk has it: a torn end must be seen as one."""
        if not (hasattr(self, "driver") and self.driver.is_disk_lost):
            self.votes.close()

    def _start_fetching(self) -> None:
        scrubbed = ReaderThread(self._config.data, "scrub")
        self._closers.append(scrubbed.close)
        self.scrub = Scrub(scrubbed, self.ledger, self.driver.in_ledger, self.duties.exchange.blocks,
                           self.transport.connected, self.duties.missing.lacks, self.driver.alarm)
        missing, loop = self.duties.missing, asyncio.get_running_loop()
        top = {channel: height for channel, height, _ in self.ledger.stand().heads}
        work = [missing.remember(top), missing.keep_readings(), self.membership.run()]
        work.append(self.scrub.run(self._config.scrub_s))
        work += [missing.keep_certificates(channel, self.driver.certified) for channel in self.ledger.channels]
        self._tasks += [loop.create_task(one) for one in work]
        for task in self._tasks:
            task.add_done_callback(self.driver.ended)

    def _check_signature(self, item: bytes, kind: str, public_key: bytes) -> bool:
        """Until ingest is there (the start's own checks) nothing is remembered."""
        if hasattr(self, "ingest"):
            return self.duties.check_signature(item, kind, public_key)
        try:
            _, _, payload, signature = verify.read_leaf(item)
        except Refused:
            return False
        return verify_digest(public_key, verify.digest(payload, kind, self.ledger.chain_id), signature)

    def _peer_changed(self, index: int, is_here: bool) -> None:
        logger.info("replica %d is %s", index, "here" if is_here else "gone")
        if not is_here:
            self.duties.exchange.gone(index)

    def _newest_ms(self) -> int:
        """Time of the newest committed reading."""
        return max((one.time_ms for one in self.stores.points()), default=0)

    def _write_run(self) -> None:
        """Tells other programs of this machine where we are; gone after a clean end."""
        path = self._config.data / RUN
        facts = {"pid": os.getpid(), "folder": str(self._config.file.parent), "api": self.http.address,
                 "listen": self.transport.listen, "index": self.index, "started_ms": self.started_ms}
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(facts))
        os.replace(temporary, path)
        self._closers.append(lambda: path.unlink(missing_ok=True))


def bytes_written(path: Path = Path("/proc/self/io")) -> int:
    """Bytes that this process caused to be written to disks, by the kernel's count; 0 where the kernel tells none."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        return 0
    return 0
