"""Follows the changes of validators that /data tells of with a light node, and says what it thinks of each step.

/data/genesis.cbor; /data/steps.txt: now in Unix seconds, then lines of an operation and two words in hex ("-": none).
"""

import gc

gc.threshold(4096)

import sys

import firmware
from firmware import lightnode
from firmware.crypto import p256
from firmware.wire.errors import Refused


def forget(*names):
    """As board/micro.py drops what has done its work."""
    for name in names:
        module = sys.modules.pop("firmware." + name, None)
        parent = firmware.wire if name.startswith("wire.") else firmware
        if module is not None:
            delattr(parent, name[name.find(".") + 1:])
    gc.collect()


def node(state):
    with open("/data/genesis.cbor", "rb") as file:
        light = lightnode.LightNode(file.read(), p256.verify_digest, state)
    forget("trust")
    return light


def unhex(word):
    return b"" if word == "-" else bytes.fromhex(word)


def run():
    light = node(None)
    with open("/data/steps.txt") as file:
        now_s = int(file.readline())
        line = file.readline()
        while line:
            words = line.split()
            try:
                if words[0] == "restart":
                    state, light = light.save(), None
                    light = node(state)
                elif words[0] == "follow":
                    light.follow(unhex(words[1]), now_s)
                else:
                    light.accept(unhex(words[1]), unhex(words[2]), now_s)
                print("height %d, epoch %d" % (light.height, light.epoch))
            except Refused as refused:
                print(refused.reason)
            forget("handover", "wire.epochs", "wire.certificate", "wire.merkle", "wire.identity", "wire.voting")
            line = file.readline()
    gc.collect()
    print("heap", gc.mem_alloc() if hasattr(gc, "mem_alloc") else 0)


run()
