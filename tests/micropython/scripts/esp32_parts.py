"""Runs one part of the ESP32's board and prints what it does: time | wifi | uart LINE | enrol | watch | light."""

import sys
import time

import machine
import network
import ntptime

from firmware.board import esp32_light, esp32_net, esp32_time

NOW_S = 1800000000  # a moment of 2027
hand = [1000, 1000]  # ms that are moved by hand, and as ticks: small integers, nothing else is allowed in ticks_diff


def by_hand():
    time.ticks_ms = lambda: hand[1]
    time.sleep_ms = lambda wait_ms: pass_ms(wait_ms)
    network._bridge = machine._bridge = Bridge


class Bridge:
    @staticmethod
    def ticks_ms():
        return hand[1]


def pass_ms(count):
    hand[0] += count
    hand[1] = time.ticks_add(hand[1], count)


def keeper(hosts):
    clock = esp32_time.BoardClock()
    return clock, esp32_time.TimeKeeper(clock, hosts, esp32_time.ask_ntp, esp32_time.set_rtc, say)


def say(text):
    print("log", text)


def turn(one, count, is_up=True):
    """So many seconds of the loop."""
    for _ in range(count):
        one.step(is_up)
        pass_ms(1000)


def show(name, clock):
    print(name, clock.quality(), clock.now_ms() // 1000 - ntptime.truth())


def run_time():
    by_hand()
    start = hand[0]
    ntptime.truth = lambda: NOW_S + (hand[0] - start) // 1000
    machine.start_chip()
    print("epoch", time.gmtime(0)[0], esp32_time.epoch_s(), time.time() + esp32_time.epoch_s())
    hosts = ["a", "b", "c"]
    clock, one = keeper(hosts)
    print("power-on", clock.quality(), clock.now_ms() < esp32_time.EARLIEST_S * 1000)
    turn(one, 20, False)
    print("asked without a network", len(ntptime.asked))
    ntptime.lies = {"a": None, "b": None, "c": None}
    turn(one, 20)
    print("nobody answers", clock.quality())
    ntptime.lies = {"a": -1000000000, "b": -1000000000}  # 1995: earlier than anything proven
    turn(one, 40)
    show("two of three lie about the past", clock)
    ntptime.lies = {"a": 86400}
    turn(one, 40)
    show("one of three lies", clock)
    print("chip", time.time() + esp32_time.epoch_s() - ntptime.truth(), machine.RTC().datetime()[:3])
    ntptime.lies = {"a": 86400, "b": 86400, "c": 86400}
    turn(one, 1800)
    show("all lie, first round", clock)
    turn(one, 1200)
    show("second round", clock)
    ntptime.lies = {}
    turn(one, 1300)
    show("the truth again", clock)
    one.floor_s = NOW_S + 100000
    ntptime.lies = {"a": -600, "b": -600, "c": -600}
    turn(one, 1900)
    show("earlier than a signed header", clock)
    one.floor_s = 0
    ntptime.lies = {"a": None, "b": None, "c": None}
    turn(one, 90000)
    show("a day without an answer", clock)
    before_ms = clock.monotonic_ms()
    for _ in range(5):  # two weeks
        pass_ms(0x10000000)
        clock.now_ms()
    print("ticks wrap", clock.monotonic_ms() - before_ms == 5 * 0x10000000)
    machine.start_chip(NOW_S)
    print("after a restart", esp32_time.BoardClock().quality())


def run_wifi():
    by_hand()
    network.DELAY_MS = 100
    network.there = {}
    nic = network.WLAN(network.WLAN.IF_STA)
    chance = lambda count: b"\xff" * count  # noqa: E731
    one = esp32_net.Wifi(nic, [("one", "x"), ("two", "good")], say, chance)

    def turns(count):
        for _ in range(count):
            one.step(hand[0])
            pass_ms(200)

    turns(1500)  # five minutes
    print("absent", one.is_up, len(network.tries))
    network.there = {"two": "bad"}
    turns(600)
    print("wrong password", one.is_up)
    network.there = {"two": "good"}
    turns(450)
    print("there", one.is_up)
    network.there = {}
    turns(10)
    print("gone", one.is_up)
    network.there = {"one": "x"}
    turns(450)
    print("another", one.is_up, network.tries[-1])
    none = esp32_net.Wifi(nic, [], say, chance)
    print("no networks", none.step(0))


def run_uart(line):
    from firmware import bus
    from firmware.board import esp32_uart
    from firmware.config import Bus
    machine.lines = {1: line}
    for port in ("uart0:tx=1,rx=3", "uart1:tx=17", "uart1:tx=17,rx=16,re=4", "uart1:tx=a,rx=1", "/dev/ttyUSB0"):
        try:
            esp32_uart.parse(port)
        except Exception as error:
            print(type(error).__name__, port)
    for echo in (False, True):
        machine.has_echo = echo
        one = esp32_uart.UartPort(Bus("uart1:tx=17,rx=16,de=4", 9600, "E", 5, 500, ()))
        exchanges = bus.poll(one, 1, [(4, 0, 2), (4, 72, 4)], 1, 500)
        pin = machine.pins[4]
        print("echo", echo, [exchange.reason for exchange in exchanges], [edge.value for edge in pin.edges])
        one.close()
    settings = machine.UART.opened[0].settings
    print("uart", [(key, settings[key]) for key in ("baudrate", "bits", "parity", "stop", "tx", "rx", "timeout")])
    try:
        one.write(b"x")
    except OSError as error:
        print("closed", error)


def run_enrol():
    from firmware.board import esp32_enrol
    message = esp32_enrol.request("/board", bytes(range(32)), "home", "esp32")
    again = esp32_enrol.request("/board", bytes(range(32)), "home", "esp32")
    with open("/board/key.bin", "rb") as file:
        key = file.read()
    print(message.hex(), message == again, len(key), key in message)


def run_watch():
    """The loop turns, but nothing is done: no food for the watchdog."""
    from firmware.board import esp32

    class Board:
        clock = esp32_time.BoardClock()
        polled_ms = 0
        is_linked = False
        updater = answered_ms = None

        @staticmethod
        def step_update():
            return False

    class Agent:
        due_ms = None

        def next_ms(self):
            return self.due_ms

    class Light:
        def show(self, name):
            self.name = name

    class Wifi:
        is_up = False

        def step(self, now_ms):
            return False

    class Keeper:
        def step(self, is_up):
            pass

    by_hand()
    Board.clock = clock = esp32_time.BoardClock()
    machine.start_chip(NOW_S)
    dog = machine.WDT(timeout=60000)
    time.ticks_ms = lambda: hand[1]
    agent, light = Agent(), Light()
    watch = esp32.Watch(Board, agent, dog, Wifi(), Keeper(), None, light)
    food = []
    dog.feed = lambda: food.append(1)

    def fed():
        before = len(food)
        watch.is_over()
        return len(food) > before

    agent.due_ms = clock.now_ms() + 1000
    print("due soon", fed(), light.name)
    pass_ms(30000)
    print("late by half a minute", fed())
    Board.polled_ms = clock.monotonic_ms()
    pass_ms(50000)
    print("late, but a poll has ended", fed())
    pass_ms(20000)
    print("late, and no poll ends", fed())
    agent.due_ms = None
    print("polls under way for ever", fed())


def run_light():
    one = esp32_light.Light(2)
    timer = machine.timers[0]
    for name in sorted(esp32_light.PATTERNS):
        one.show(name)
        shown = ""
        for _ in range(16):
            timer.callback(timer)
            shown += "#" if machine.pins[2].value() else "."
        print(name, shown)
    print(esp32_light.name_of(["clock", "meter"]), esp32_light.name_of([]), esp32_light.Light(-1)._tick(None))


{"time": run_time, "wifi": run_wifi, "uart": run_uart, "enrol": run_enrol, "watch": run_watch,
 "light": run_light}[sys.argv[1]](*sys.argv[2:])
