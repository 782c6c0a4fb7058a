"""Checks that a light node follows a change of the validators and no lie about one, in every interpreter."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.lightnode import LightNode
from firmware.trust import PARAMETERS, decode_trust, read_genesis
from firmware.wire import epochs, genesis
from firmware.wire.errors import Refused
from tests.firmware import handovers
from tests.firmware.handovers import NOW_S
from tests.firmware.world import Chain, Rig
from tests.micropython.bounded import bounded, compile_all
from tests.micropython.interpreter import ROOT, command, run

SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "follow.py"
BOARD_HEAP = 56 * 1024


def test_two_changes_are_followed_and_every_lie_is_refused() -> None:
    genesis_bytes, steps = handovers.story()
    light = LightNode(genesis_bytes, verify_digest)
    refused = 0
    for number, (operation, one, two, expected) in enumerate(steps):
        before = light.save()
        try:
            if operation == "restart":
                light = LightNode(genesis_bytes, verify_digest, light.save())
            elif operation == "follow":
                light.follow(one, NOW_S)
            else:
                light.accept(one, two, NOW_S)
            said = f"height {light.height}, epoch {light.epoch}"
        except Refused as error:
            said = error.reason
            refused += 1
            assert light.save() == before, "a lie changed something"
        assert said == expected, (number, operation)
    assert light.epoch == 2 and refused == 2 * (21 + 1 + 13)


def test_the_same_in_micropython(tmp_path: Path) -> None:
    """1.23 and 1.27 as they are, 1.29 on the heap of a board with its code in RAM."""
    genesis_bytes, steps = handovers.story()
    (tmp_path / "genesis.cbor").write_bytes(genesis_bytes)
    lines = [str(NOW_S), *(f"{operation} {one.hex() or '-'} {two.hex() or '-'}" for operation, one, two, _ in steps)]
    (tmp_path / "steps.txt").write_text("\n".join(lines) + "\n")
    made = compile_all(tmp_path / "made")
    options = made.options(BOARD_HEAP, {tmp_path: "/data"})
    done = [run(version, SCRIPT, mounts={tmp_path: "/data"}) for version in ("1.23", "1.27")]
    done.append(subprocess.run(command(bounded("1.29"), made.scripts / "follow.mpy", options=options),
                               capture_output=True, text=True, timeout=60))
    for one in done:
        assert (one.returncode, one.stderr) == (0, "")
        *said, heap = one.stdout.splitlines()
        assert said == [expected for _, _, _, expected in steps], heap


def test_what_is_read_of_a_genesis_is_what_is_in_it() -> None:
    changed = {name: value + 1 for name, value in genesis.PARAMETERS}
    for chain in (Chain(), Chain(7, 5), Chain(1, **changed)):
        whole, facts = genesis.decode(chain.genesis), read_genesis(chain.genesis, "trade")
        assert facts.chain_id == genesis.chain_id(chain.genesis) and facts.speed == whole.speed
        assert facts.header == genesis.header_zero(chain.genesis, "trade")
        assert facts.keys == [member.public_key for member in whole.members]
        assert facts.tls_hashes == b"".join(member.tls_hash for member in whole.members)
        for name, place, value in PARAMETERS:
            assert facts.parameters[name] == whole.parameters[name]
            assert genesis.PARAMETERS[place] == (name, value), "its place and default"


@pytest.mark.parametrize("cut", [0, 1, 10, 60, 200])
def test_a_cut_genesis_is_refused(cut: int) -> None:
    with pytest.raises(Refused):
        read_genesis(Chain().genesis[:cut], "trade")


def test_an_agent_follows_what_the_brokers_keep_and_saves_it() -> None:
    """Handovers come retained, in any order and again and again: the next epoch's counts, the rest says nothing."""
    chain = handovers.ChangingChain()
    rig = Rig(chain=chain)
    kept = []
    for _ in range(2):
        signers = chain.others()
        found = chain.handover(signers)
        kept.append(bytes(epochs.encode(found)))
        chain.change(found, signers)
    for data, epoch in ((kept[1], 0), (kept[0], 1), (kept[0], 1), (kept[1], 2), (kept[1], 2)):
        rig.obey(rig.agent.on_handover(data, NOW_S))
        assert rig.light.epoch == epoch
    assert rig.agent.counts["bad_headers"] == 0 and decode_trust(rig.trust).epoch == 2
    other = chain.others()
    forged = chain.handover(other, {"signers": [0, 1]})
    rig.obey(rig.agent.on_handover(bytes(epochs.encode(forged)), NOW_S))
    rig.obey(rig.agent.on_handover(b"rubbish", NOW_S))
    assert rig.light.epoch == 2 and rig.agent.counts["bad_headers"] == 2
    top = chain.block()
    assert rig.light.accept(top, chain.proof(top), NOW_S).height == 3
