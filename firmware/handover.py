"""Makes a light node follow a change of the validators. Loaded when one comes, and dropped by a board."""

from firmware.wire import certificate, epochs, identity
from firmware.wire.errors import check


def follow(light, data, now_s):
    """LightNode.follow."""
    found = epochs.decode(data)
    members = []
    for at in range(len(light.keys)):
        key = light.keys[at]
        members.append(certificate.Member(identity.kid_of(key), key, light.tls_hashes[32 * at:32 * at + 32]))
    top, others = epochs.check_handover(found, members, light.epoch, (light.channel,), light.chain_id,
                                        light.verify_digest)
    check(top.height >= light.height, "wrong_height", light.height, top.height)
    light.accept(found.header, found.certificate, now_s)  # linked, not from the future, and no contradiction
    light.old_keys, light.since = light.keys, top.height
    light.keys = [member.public_key for member in others]
    light.tls_hashes = b"".join([member.tls_hash for member in others])
    light.epoch += 1
    light.is_changed = True
