"""Signs headers as a witness on a board's heap: follows the header messages of /data, saves, signs, starts again.

/data/genesis.cbor, /data/key.bin (a test key's scalar); /data/messages.bin: 2 bytes of length, 4 of now, a message.
"""

import gc
import hashlib
import struct

from firmware import lightnode
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import identity, witness
from firmware.wire.errors import Refused

gc.threshold(4096)  # as board/sim.py


def read(name):
    with open("/data/" + name, "rb") as file:
        return file.read()


def sign(light, signer, kid):
    gc.collect()
    print("signed", witness.sign(kid, light.channel, light.witnessed[0], light.chain_id, signer.sign_digest).hex())


def follow(light, signer, kid):
    """Returns what was saved last: it is saved before anything is signed."""
    saved = None
    with open("/data/messages.bin", "rb") as file:
        head = file.read(6)
        while head:
            length, now_s = struct.unpack(">HI", head)
            try:
                found = witness.decode_header_message(file.read(length))
                is_first = light.may_witness(found.header)
                print(light.accept(found.header, found.certificate, now_s).height, is_first)
                if is_first:
                    light.note_witness(found.header, found.certificate)
                    saved = light.save()
                    print("saved", len(saved), hashlib.sha256(saved).digest().hex())
                    sign(light, signer, kid)
            except Refused as refused:
                print(refused.reason)
            head = file.read(6)
    return saved


def run():
    genesis = read("genesis.cbor")
    signer = SoftwareSigner(read("key.bin"))
    kid = identity.kid_of(signer.public_key())
    saved = follow(lightnode.LightNode(genesis, p256.verify_digest), signer, kid)
    gc.collect()
    again = lightnode.LightNode(genesis, p256.verify_digest, saved)  # the power failed after the save: the same again
    sign(again, signer, kid)
    gc.collect()
    print("heap", gc.mem_alloc(), gc.mem_free())


run()
