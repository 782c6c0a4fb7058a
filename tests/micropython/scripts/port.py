"""Polls a meter over the simulated board's line until it was gone twice and answers again: URL SECONDS."""

import sys
import time

from firmware import bus
from firmware.board.micro_port import TcpPort

REQUESTS = [(4, 0, 2), (4, 72, 4)]


def run(url, seconds):
    port = TcpPort(url[len("tcp://"):], 5)
    said: list = []
    transaction = 0
    end_ms = time.ticks_add(time.ticks_ms(), seconds * 1000)
    while said[-1:] != ["ok"] or said.count("port") < 2:
        if time.ticks_diff(end_ms, time.ticks_ms()) < 0:
            break
        exchanges = bus.poll(port, 1, REQUESTS, 1, 300, transaction)
        transaction += len(exchanges)
        reasons = [exchange.reason for exchange in exchanges]
        if reasons == [None, None]:
            reasons = ["ok"]
            counts = [len(exchange.words) for exchange in exchanges]
            if counts != [2, 4]:
                raise ValueError(counts)
        if reasons[-1] != (said or [None])[-1]:
            said.append(reasons[-1])
            print(reasons[-1])
        time.sleep_ms(20)
    port.close()


run(sys.argv[1], int(sys.argv[2]))
