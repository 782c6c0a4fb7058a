"""Says whether a bill is right, from docs/BILL.md alone: a second opinion that shares no code with the product.

    python second_verifier.py BILL GENESIS      exit 0 good, 1 bad, 2 unreadable
"""
import hashlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

ES256 = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
KEYS: dict = {}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
TRADE, SUPPLY, BALANCE, CORRECTION = 3, 4, 5, 6  # kinds of entries
class Bad(Exception): ...

def must(holds, why):
    if not holds:
        raise Bad(why)

def sha(data):
    return hashlib.sha256(data).digest()

# CBOR: integers, bytes, text, arrays, booleans, null; shortest heads only.
def head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes([major << 5 | 23 + size.bit_length()]) + number.to_bytes(size, "big")

def encode(value):
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    data = value.encode() if isinstance(value, str) else value
    return head(2 if data is value else 3, len(data)) + data

def decode(data):
    value, end = read(data, 0)
    must(end == len(data), "bytes after the end")
    return value

def read(data, at):
    must(at < len(data), "it ends too soon")
    major, number, at = data[at] >> 5, data[at] & 31, at + 1
    if major == 7:
        return {20: False, 21: True, 22: None}[number], at
    if number > 23:
        must(number < 28, "an indefinite length")
        size = 1 << number - 24
        number, at = int.from_bytes(data[at:at + size], "big"), at + size
        must(number >= (24 if size == 1 else 1 << 4 * size), "a longer head than needed")
    if major < 2:
        return (-1 - number if major else number), at
    must(at + number <= len(data), "it ends too soon")
    if major < 4:
        return (data[at:at + number] if major == 2 else data[at:at + number].decode()), at + number
    must(major == 4, "a value of another kind")
    items: list = []
    while len(items) < number:
        item, at = read(data, at)
        items.append(item)
    return items, at

def leaf(data):
    return sha(b"\0" + data)

def tree_root(leaves):
    while len(leaves) > 1:
        leaves = [sha(b"\1" + leaves[at] + leaves[at + 1]) for at in range(0, len(leaves), 2)]
    return leaves[0]

def must_include(data, index, size, path, root):
    must(0 <= index < size, "a leaf outside of its tree")
    found, last = leaf(data), size - 1
    for step in path:
        must(last > 0, "a path that is too long")
        is_right = index & 1 or index == last
        found = sha(b"\1" + (step + found if is_right else found + step))
        while is_right and not index & 1 and index:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    must(last == 0 and found == root, "not in the block")

def must_sign(public, payload, kind, chain_id, signature):
    signed = encode(["Signature1", b"\xa1\x01\x26", encode(["gridseal", 1, chain_id, kind]), payload])
    if public not in KEYS:
        KEYS[public] = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    r, s = (int.from_bytes(signature[at:at + 32], "big") for at in (0, 32))
    try:
        KEYS[public].verify(utils.encode_dss_signature(r, s), sha(signed), ES256)
    except InvalidSignature:
        raise Bad(f"a signature of kind {kind} does not hold") from None

class Chain:
    """The genesis: which replicas sign, and how many of them it takes."""
    def __init__(self, data):
        fields = decode(data)
        must(fields[:2] == [1, "gridseal"], "no genesis")
        self.id, self.members, self.set_hash = sha(data), fields[6], sha(encode(sorted(fields[6])))
        self.boundary_ms, self.slot_s = fields[5][13] * 1000, fields[5][16]
        self.quorum = (len(self.members) + (len(self.members) - 1) // 3 + 2) // 2

    def check_block(self, header, certificate, meta, meta_path):
        """(height, body root, meta's fields) of a certified block."""
        must(len(header) == 80 and header[:4] == bytes([0, 0, 0, 1]), "no header")
        height, root, facts = int.from_bytes(header[76:], "big"), header[36:68], decode(meta)
        must([facts[0], *facts[2:5]] == [1, self.id, 0, height], "a block of another chain")
        must(facts[8] == self.set_hash, "another set of replicas")
        must_include(meta, 0, facts[5] + 1, meta_path, root)
        *voted, bitmap, signatures = decode(certificate)
        must(voted == [1, 0, facts[1], height, sha(header)], "a certificate of another block")
        signers = [bit for bit in range(8 * len(bitmap)) if bitmap[bit >> 3] >> (bit & 7) & 1]
        must(len(signers) == len(signatures) >= self.quorum and bitmap[-1], "too few signers")
        for signer, signature in zip(signers, signatures):
            must_sign(self.members[signer][1], encode([0, facts[1], height, sha(header)]), "header", self.id, signature)
        return height, root, facts

class State:
    """The records that the file shows of the state under one block."""
    def __init__(self, chain, part):
        header, certificate, meta, meta_path, leaves, buckets = part
        self.header, (self.height, _, facts) = header, chain.check_block(header, certificate, meta, meta_path)
        leaves = [leaves[at:at + 32] for at in range(0, len(leaves), 32)]
        must(len(leaves) == 4096 and tree_root(leaves) == facts[7], "another state")
        must(all(one[0] < two[0] for one, two in zip(buckets, buckets[1:])), "buckets in disorder")
        must(all(leaf(sha(encode(pairs))) == leaves[index] for index, pairs in buckets), "a record not in the state")
        self.shown = {index: dict(pairs) for index, pairs in buckets}

    def get(self, name, *numbers):
        key = name + b"".join(number.to_bytes(size, "big") for number, size in numbers)
        bucket = int.from_bytes(sha(key)[:2], "big") >> 4
        must(bucket in self.shown, f"the file does not show {key!r}")
        return decode(self.shown[bucket][key]) if key in self.shown[bucket] else None

def open_message(chain, after, message, kind):
    """(its signer's record, fields, payload) of a COSE_Sign1 of exactly our form."""
    (payload, at), signature, agent = read(message, 17), message[-64:], after.get(b"agent/" + message[9:17])
    must(message[:9] == b"\xd2\x84\x43\xa1\x01\x26\xa1\x04\x48" and agent, "no signed message")
    must(message[at:-64] == b"\x58\x40" and int.from_bytes(signature[32:], "big") <= ORDER >> 1, "no signature")
    must_sign(agent[0], payload, kind, chain.id, signature)
    return agent, decode(payload), payload

def check_seals(chain, after, blocks):
    """For every block its seals' (fields, hash), each signed by an agent of its point and taken unmarked."""
    found = []
    for header, certificate, meta, meta_path, results, seals in blocks:
        _, root, facts = chain.check_block(header, certificate, meta, meta_path)
        must(len(results) == facts[5] and sha(encode(results)) == facts[6], "other result codes")
        rows = []
        for message, index, path in seals:
            must_include(message, index, facts[5] + 1, path, root)
            code = results[index - 1]
            must(index and (code == 0 or code >= 256 and not code - 256 & 0b101011), "a seal that moves no energy")
            agent, fields, payload = open_message(chain, after, message, "seal")
            must(fields[1] == message[9:17] and fields[2] in agent[7] and fields[14] & 3 == 2, "no seal that counts")
            rows.append((fields, sha(payload)))
        found.append(rows)
    return found

def check_chains(chains, own):
    found = set()
    for kid, point, payloads in chains:
        must(point in own, "a chain of another's point")
        last = None
        for payload in payloads:
            fields = decode(payload)
            must(fields[1:3] == [kid, point], "a seal of another chain")
            must(not last or fields[4] - fields[5] == last[0] + 1, "a seal is missing")
            must(not last or fields[6] == (bytes(32) if fields[5] else last[1]), "a seal was exchanged")
            last = fields[4], sha(payload)
            found.add(last[1])
    return found

def totals_of(meter, fields):
    return [tuple(None if register is None or register < (start or 0) else base + (register - (start or 0)) * num // den
                  for register, start, base in ((fields[11], starts[0], bases[0]), (fields[12], starts[1], bases[1])))
            for number, *starts_bases, num, den in meter[0] if number == fields[3]
            for starts, bases in [(starts_bases[:2], starts_bases[2:])]]

def border_totals(chain, meter, chosen, at_ms):
    both = [(fields[10], totals_of(meter, fields)) for fields, _ in chosen]
    if len(both) == 1:
        must(abs(both[0][0] - at_ms) <= chain.boundary_ms, "a reading too far from the border")
        return both[0][1]
    (first, ones), (last, twos) = both
    must(first < at_ms - chain.boundary_ms and at_ms + chain.boundary_ms < last, "readings not around the border")
    return [tuple(None if old is None or new is None else old + (new - old) * (at_ms - first) // (last - first)
                  for old, new in zip(one, two)) for one in ones for two in twos]

def half_even(divisor, number, factor):
    whole, rest = divmod(number * factor, divisor)
    return whole + (2 * rest > divisor or 2 * rest == divisor and whole & 1)

def share(whole, trades, mine):
    """The part of `whole` of trade number `mine`: by agreed volume, largest remainder, ties by number."""
    weight = sum(trade[9] for trade in trades)
    parts = {trade[0]: divmod(whole * trade[9], weight) for trade in trades}
    lucky = sorted(parts, key=lambda number: (-parts[number][1], number))
    return parts[mine][0] + (mine in lucky[:whole - sum(part for part, _ in parts.values())])

def expected_amounts(account, own, trades, energies, tariff):
    retail, buyback, wheeling, subsidy = tariff
    found = {}
    for number, _, flow, _, buyer, buying, seller, selling, price, *_ in trades:
        if account not in (buyer, seller):
            continue
        pays = gets = 0
        if energies[buying] and energies[selling]:
            used = share(energies[buying][0], [one for one in trades if one[5] == buying], number)
            made = share(energies[selling][1], [one for one in trades if one[7] == selling], number)
            both = min(used, made)
            pays = half_even(1000, both, price + wheeling) + half_even(1000, used - both, retail)
            pays -= min(half_even(10 ** 11, subsidy * both, price * price), half_even(1000, both, price)) * (flow > 1)
            gets = half_even(1000, both, price) + half_even(1000, made - both, buyback)
        found.update({(TRADE, point, number): value for point, value, who in (
            (buying, -pays, buyer), (selling, gets, seller)) if who == account})
    for point in own:
        buys, sells = any(one[5] == point for one in trades), any(one[7] == point for one in trades)
        used, made = energies[point] or (0, 0)
        cost, gain = 0 if buys else half_even(1000, used, retail), 0 if sells else half_even(1000, made, buyback)
        if cost or gain or not (buys or sells):
            found[SUPPLY, point, None] = gain - cost
    return found

def tariff_at(versions, number, slot):
    """(retail, buyback, wheeling, subsidy) of a version of the tariff for a slot."""
    zone, periods, buyback, wheeling, subsidy = next(
        row[3] for row in versions if row[0] == number and sha(encode(row[3])) == row[2])
    hour = (slot + [zone[0][1], *(shift for instant, shift in zone if instant <= slot)][-1]) // 3600 % 24
    return next(price for first, end, price in periods if first <= hour < end), buyback, wheeling, subsidy

def check_energy(row, point, slot, step, totals):
    """(used, made) of a point's slot, None where it is missing; what was measured must follow from seals."""
    _, used, made, quality = row
    if quality < 2:
        must((used, made) in [tuple(None if low is None or high is None else high - low for low, high in zip(one, two))
                              for one in totals[point, slot] for two in totals[point, slot + step]], "no such energy")
    return None if used is None and made is None else (used or 0, made or 0)

def check(bill, genesis):
    """The bill's total in mc; Bad with the reason."""
    chain, file = Chain(genesis), decode(bill)
    must(len(file) == 12 and file[:3] == [1, "gridseal-bill", chain.id], "no bill of this chain")
    account, first, end = file[3:6]
    before, after = State(chain, file[6]), State(chain, file[7])
    is_period = before.height < after.height and first % chain.slot_s == 0
    must(is_period and before.get(b"calendar")[2] == first < after.get(b"calendar")[2] == end, "another period")
    must(file[11] == sorted(set(file[11]), key=lambda message: message[9:17]), "witnesses in disorder")
    for agent, fields, _ in (open_message(chain, after, message, "witness") for message in file[11]):
        must(agent[1] == "agent" and agent[9] is None and fields[3] == after.header, "no witness of this header")
    old, new = (state.get(b"account/" + account) or [account] + [0] * 10 for state in (before, after))
    numbers = range(old[8] + 1, new[8] + 1)
    entries = [after.get(b"entry/" + account, (number, 4)) for number in numbers]
    must(len(numbers) == new[8] - old[8] and [entry[0] for entry in entries] == list(numbers), "a line is missing")
    must(sum(entry[2] for entry in entries) == new[1] - old[1], "the lines do not make the balance")
    own = after.get(b"owner/" + account) or []
    chained, seals, totals, last = check_chains(file[10], own), check_seals(chain, after, file[8]), {}, (-1, -1)
    for point, slot, places in file[9]:
        must((point, slot) > last and len(places) in (1, 2), "borders in disorder")
        last, chosen = (point, slot), [seals[block][place] for block, place in places]
        must(all(fields[2] == point for fields, _ in chosen), "another point's seal")
        must(point not in own or all(digest in chained for _, digest in chosen), "a seal outside of its chain")
        totals[point, slot] = border_totals(chain, after.get(b"meter/", (point, 4)), chosen, slot * 1000)
    grid, tariffs = after.get(b"role/grid")[0], after.get(b"rules/tariff")
    for slot in range(first, end, chain.slot_s):
        clearing, record = after.get(b"clearing/", (slot, 8)), after.get(b"slot/", (slot, 8))
        must(clearing[0] == record[0] == slot and record[1] == 2, "a slot that is not settled")
        trades, rows = clearing[9], {row[0]: row for row in record[4]}
        parties = {*own, *(point for one in trades if account in (one[4], one[6]) for point in (one[5], one[7]))}
        energies = {point: check_energy(rows.get(point, [point, None, None, 3]), point, slot, chain.slot_s, totals)
                    for point in parties}
        mine = [entry for entry in entries if entry[5] == slot and entry[1] in (TRADE, SUPPLY, CORRECTION)]
        made = expected_amounts(account, own, trades, energies, tariff_at(tariffs, clearing[5], slot))
        shown = [((entry[1], entry[6], entry[7]), entry[2]) for entry in mine]
        if any(entry[1] == CORRECTION for entry in mine):  # they differ line by line; what remains is the sum
            must(account == grid or sum(value for _, value in shown) == sum(made.values()), "other amounts")
        else:
            must(account == grid or sorted(shown, key=repr) == sorted(made.items(), key=repr), "other amounts")
    for entry in entries:
        is_inside = entry[5] is not None and first <= entry[5] < end
        must(is_inside or account == grid or entry[1] not in (TRADE, SUPPLY, BALANCE), "a line of another period")
    return new[1] - old[1]

def main(arguments):
    try:
        bill, genesis = (open(path, "rb").read() for path in arguments)
    except (OSError, ValueError) as error:
        return print(error) or 2
    try:
        return print(f"good: {check(bill, genesis)} mc") or 0
    except (Bad, TypeError, ValueError, LookupError, StopIteration, OverflowError, RecursionError) as error:
        return print(f"bad: {error}") or 1

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
