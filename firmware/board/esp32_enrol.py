"""Makes a board's signed request to be enrolled, with a key that was made on it and stays there.

`gridseal flash` calls it over the serial line; what comes back is public.
"""

import os

from firmware.board import esp32_start
from firmware.board.micro import read_file
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import genesis, identity, transaction

PROTECTION = "software"  # the key lies in flash; who opens the case can read it (docs/signing.md)


def request(folder, spki_hash, area, model, genesis_name="genesis.cbor"):
    """Returns the enrol COSE; makes key.bin if there is none. spki_hash: of the TLS key (SubjectPublicKeyInfo)."""
    from network import WLAN
    signer = SoftwareSigner(esp32_start.key(folder, WLAN(WLAN.IF_STA)), os.urandom)
    public = signer.public_key()
    asked = transaction.Enrolment(public, spki_hash, "agent", area, model, PROTECTION)
    chain_id = genesis.chain_id(read_file(folder + "/" + genesis_name))
    return transaction.encode_enrolment(asked, identity.kid_of(public), chain_id, signer.sign_digest)
