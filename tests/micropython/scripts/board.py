"""Starts the board of /board and /chip as its main.py does, with shorter times: OPTIONS as JSON.

lines: {UART number: line}; networks: {name: password} in reach; lies: {time server: seconds}; cut: romfs operation in
which the power fails; seconds: after which this start is over (exit code 0); times: {"module.NAME": ms}; epoch: Unix
seconds that the chip's clock has kept (0: power-on). The exit code is 42 after a reset, 43 by the watchdog, 44 a cut.
"""

import json
import sys
import time

import esp32
import machine
import network
import ntptime

options = json.loads(sys.argv[1])
machine.lines = {int(number): options["lines"][number] for number in options.get("lines", {})}
machine.has_echo = options.get("echo", False)
network.there = options.get("networks", network.there)
ntptime.lies = options.get("lies", {})
esp32.cut_after = options.get("cut")
esp32.cut_label = "romfs"
machine.start_chip(options.get("epoch", 0))
sys.path[:] = ["/board", "/lib"]

import starter

plain_mount = starter.mount
end_ms = time.ticks_add(time.ticks_ms(), options.get("seconds", 3600) * 1000)


class TimeOver(BaseException):
    pass


def mount(partition, slot, vfs):
    plain_mount(partition, slot, vfs)
    print("SLOT", "ab"[slot], starter.load("/board/boot.cbor"))
    for place in options.get("times", {}):
        name, _, constant = place.rpartition(".")
        module = starter if name == "starter" else __import__(name, None, None, [constant])
        setattr(module, constant, options["times"][place])
    from firmware.board import esp32 as board
    plain = board.Watch.is_over

    def is_over(self):
        if time.ticks_diff(time.ticks_ms(), end_ms) > 0:
            self.is_told = True
            raise TimeOver
        return plain(self)

    board.Watch.is_over = is_over


starter.mount = mount
for name in ("WATCHDOG_MS", "PAUSE_MS"):
    if "starter." + name in options.get("times", {}):
        setattr(starter, name, options["times"]["starter." + name])
try:
    starter.start("/board")
except TimeOver:
    print("TIME OVER")
