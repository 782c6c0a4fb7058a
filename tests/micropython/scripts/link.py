"""Keeps a board's link to the brokers of the command line: SECONDS URL...; prints its events, and publishes on each."""

import sys
import time

from firmware.board.micro_link import Link

TOPIC = "gridseal/1/home/0123456789abcdef/"


def run(seconds, urls):
    events: list = []
    link = Link(urls, ["/data/ca.crt", "/data/tls.crt", "/data/tls.key"], "0123456789abcdef", [TOPIC + "ack"],
                (TOPIC + "death", b"gone"), events, lambda text: print("log", text), time.ticks_ms, 1000)
    end_ms = time.ticks_add(time.ticks_ms(), seconds * 1000)
    count = 0
    while time.ticks_diff(end_ms, time.ticks_ms()) > 0:
        link.step(100)
        for event in events[:]:
            print("event", event)
            if event[0] == "connected":
                count += 1
                link.publish(TOPIC + "envelope", b"%d" % count, count)
            elif event[0] == "message" and event[2] == b"change":
                link.change()
            elif event[0] == "message" and event[2] == b"stop":
                end_ms = time.ticks_ms()
        events.clear()
    link.stop()
    print("end", events)


run(int(sys.argv[1]), sys.argv[2:])
