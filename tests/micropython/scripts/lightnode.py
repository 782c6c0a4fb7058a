"""Follows the headers of /data with a light node on a board's heap and says what it thinks of each; then how it ends.

/data/genesis.cbor; /data/steps.bin: 2 bytes of header length, 2 of certificate length, 4 of now, header, certificate.
Argument: how many steps to take, all without one.
"""

import gc

# Before anything is imported: modules come and leave garbage, and where it is collected early, what stays is kept
# together and the room that is left stays in one piece.
gc.threshold(4096)

import struct
import sys

import firmware
from firmware import lightnode
from firmware.crypto import p256
from firmware.wire.errors import Refused


def show(step, used):
    gc.collect()
    used.append(gc.mem_alloc())
    print("heap", step, used[-1])


def follow(light, limit):
    used: list = []
    step = 0
    with open("/data/steps.bin", "rb") as file:
        head = file.read(8)
        while head and step < limit:
            sizes = struct.unpack(">HHI", head)
            header, certificate = file.read(sizes[0]), file.read(sizes[1])
            try:
                print(light.accept(header, certificate, sizes[2]).height)
            except Refused as refused:
                print(refused.reason, light.height)
            step += 1
            if step % 50 == 0:
                show(step, used)
            head = file.read(8)


def node(state=None):
    """A light node; what only its start needed is dropped, as a board drops it (board/micro.py)."""
    with open("/data/genesis.cbor", "rb") as file:
        light = lightnode.LightNode(file.read(), p256.verify_digest, state)
    del sys.modules["firmware.trust"], firmware.trust
    return light


def tell(light):
    for pair in light.contradiction or ():
        print("shown", pair[0].hex(), pair[1].hex())


def run():
    light = node()
    show(0, [])
    follow(light, int(sys.argv[1]) if len(sys.argv) > 1 else 1000000)
    tell(light)
    state = light.save()
    light = None  # the power fails
    tell(node(state))


run()
