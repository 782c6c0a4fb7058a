"""Makes one machine look like several: a network namespace for each replica, joined by a bridge; wires can be cut.

Needs root and iproute2. Every name and address carries this process's number, so that two runs do not meet.
"""

import ctypes
import ctypes.util
import os
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
HUB = 254  # the last number of the bridge's own address: broker, meters and this process


def may() -> bool:
    """Can this process make namespaces?"""
    return os.geteuid() == 0 and subprocess.run(["ip", "-V"], capture_output=True).returncode == 0 and (
        subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0)


class Wires:
    """`count` namespaces; address(i) reaches the i-th from the others and from here."""

    def __init__(self, count: int) -> None:
        self.count, number = count, os.getpid()
        self._net = f"10.{200 + number % 50}.{number // 50 % 250}"
        self._bridge = f"gs{number}"
        self._cut: set[tuple[int, int]] = set()
        self.hub = f"{self._net}.{HUB}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.hub}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for index in range(count):
            self._add(index)

    def _add(self, index: int) -> None:
        name, outer = self.name(index), f"{self._bridge}v{index}"
        _ip("netns", "add", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outer, "master", self._bridge, "up")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{self.address(index)}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up")):
            _ip("-n", name, *words)

    def name(self, index: int) -> str:
        return f"{self._bridge}r{index}"

    def address(self, index: int) -> str:
        return f"{self._net}.{index + 1}"

    def command(self, index: int, words: list[str]) -> list[str]:
        """The same command, run in a namespace."""
        return ["ip", "netns", "exec", self.name(index), *words]

    def inside(self, index: int, call: Callable[[], T]) -> T:
        """Calls something in a thread whose sockets are the namespace's."""
        found: list[T] = []
        failed: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/run/netns/{self.name(index)}") as place:
                    if _LIBC.setns(place.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(call())
            except BaseException as error:  # handed over to who asked
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def cut(self, sender: int, to: int) -> None:
        """What `sender` sends to `to` is lost from now on: a one-way cut, and so the end of their connections."""
        if (sender, to) not in self._cut:
            self._cut.add((sender, to))
            _ip("-n", self.name(sender), "route", "add", "blackhole", f"{self.address(to)}/32")

    def part(self, group: set[int]) -> None:
        """Cuts between a group and the rest, both ways; the broker stays within everybody's reach."""
        for one in group:
            for other in set(range(self.count)) - group:
                self.cut(one, other)
                self.cut(other, one)

    def unplug(self, index: int) -> None:
        """The cable is out: no peer, no broker."""
        _ip("link", "set", f"{self._bridge}v{index}", "down")

    def heal(self) -> None:
        """All wires are whole again."""
        for sender, to in self._cut:
            _ip("-n", self.name(sender), "route", "del", "blackhole", f"{self.address(to)}/32")
        self._cut.clear()
        for index in range(self.count):
            _ip("link", "set", f"{self._bridge}v{index}", "up")

    def close(self) -> None:
        for index in range(self.count):
            subprocess.run(["ip", "netns", "del", self.name(index)], capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True)


_LIBC = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert not done.returncode, f"ip {' '.join(words)}: {done.stderr}"
