"""Prints what the MQTT client sends and says in one session's life, the same lines in every interpreter."""

from firmware import mqtt
from firmware.wire.errors import Refused


def line(name, value):
    print(name, value.hex() if isinstance(value, bytes) else value)


def taken(one):
    for piece in one.take():
        line("out", bytes(piece))


def told(one, data, now_ms):
    for event in one.receive(data, now_ms):
        line("event", event)
    taken(one)


def packet(first, body):
    return bytes((first, len(body))) + body


client = mqtt.Client("0123456789abcdef", ["gridseal/1/home/0123456789abcdef/ack", "a/ü"], ("death", b"\x81\x01"), 300)
line("next", client.next_ms())
client.open(1000)
line("next", client.next_ms())
taken(client)
told(client, b"\x20\x02\x00", 1010)
told(client, b"\x00", 1011)
told(client, packet(0x30, b"\x00\x01aearly"), 1012)
told(client, packet(0x90, b"\x00\x01\x01\x00"), 1020)
line("up", client.is_up())
for number in range(3):
    client.publish("a/b", bytes(120 * number), ("token", number), 1030)
taken(client)
line("in flight", client.in_flight())
told(client, packet(0x40, b"\x00\x03") + packet(0x40, b"\x00\x02") + packet(0x32, b"\x00\x03a/b\x12\x34payload"), 1040)
line("in flight", client.in_flight())
big = b"\x32" + b"\xac\x02" + b"\x00\x03big\x00\x07" + bytes(293)
for at in range(0, len(big), 67):
    told(client, big[at:at + 67], 1050)
told(client, packet(0x30, b"\x00\x01x"), 1060)
line("next", client.next_ms())
line("tick", client.tick(client.next_ms() - 1))
line("tick", client.tick(client.next_ms()))
taken(client)
told(client, b"\xd0\x00", 20000)
line("tick", client.tick(35000))
taken(client)
line("tick", client.tick(client.next_ms()))
line("up", client.is_up())
client.open(60000)
taken(client)
told(client, b"\x20\x02\x00\x05", 60010)
for bad in (b"\x00\x00", b"\x20\x02\x02\x00", b"\x20\x03\x00\x00\x00", b"\x21\x02\x00\x00", b"\x20\xff\xff\xff\xff\x01",
            b"\x30\x03\x00\x01a", b"\xd0\x00", b"\x40\x02\x00\x02", b"\xf0\x00", b"\x20\xff\x7f"):
    client.open(70000)
    try:
        line("taken", client.receive(bad, 70001))
    except Refused as refused:
        line("refused", str(refused))
for bad in (b"\x34\x05\x00\x01a\x00\x01", b"\x36\x05\x00\x01a\x00\x01", b"\x38\x03\x00\x01a",
            b"\x32\x05\x00\x01a\x00\x00", b"\x30\x02\x00\x00", b"\x30\x03\x00\x02a", b"\x30\x03\x00\x01#",
            b"\x30\x03\x00\x01\x00", b"\x30\x03\x00\x01\xff", b"\x32\x03\x00\x01a",
            b"\x90\x04\x00\x01\x00\x02", b"\x90\x04\x00\x02\x00\x00", b"\x90\x03\x00\x01\x00",
            b"\x90\x04\x00\x01\x80\x00", b"\x20\x02\x00\x00", b"\x30\x01\x00", b"\x90\x84\x02"):
    client.open(80000)
    client.receive(b"\x20\x02\x01\x00", 80000)
    try:
        line("taken", client.receive(bad, 80001))
    except Refused as refused:
        line("refused", str(refused))
retry = mqtt.Retry(3)
now_ms = 0
for step in range(10):
    retry.ended(now_ms, step * 28)
    line("retry", (retry.index, retry.at_ms))
    now_ms = retry.at_ms
retry.stood()
retry.ended(now_ms, 255)
line("retry", (retry.index, retry.at_ms - now_ms))
