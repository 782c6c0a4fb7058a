"""`gridseal sim`: simulated devices, each alone; the rooms of sim_hardware behind the one command."""

from __future__ import annotations

import argparse

from deploy import sim_fleet
from deploy.clock import open_clock
from sim_hardware import command, device_command
from sim_hardware.board import command as board_command
from sim_hardware.broker import command as broker_command
from sim_hardware.plant import command as plant_command


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sim", help="a simulated device, alone", description=__doc__)
    devices = parser.add_subparsers(dest="device", required=True)
    meter = devices.add_parser("meter", help="a Modbus meter on TCP or on a pseudo-terminal")
    command.add_arguments(meter)
    meter.add_argument("--clock", help=argparse.SUPPRESS)
    meter.set_defaults(run=lambda args: command.run(args, open_clock(args.clock)))
    device = devices.add_parser("security-device", help="a security and stability control device, with its errors")
    device_command.add_arguments(device)
    device.add_argument("--clock", help=argparse.SUPPRESS)
    device.set_defaults(run=lambda args: device_command.run(args, open_clock(args.clock)))
    board = devices.add_parser("board", help="an ESP32 as esptool and mpremote see it, with its errors")
    board_command.add_arguments(board)
    board.set_defaults(run=board_command.run)
    broker = devices.add_parser("broker", help="a proxy that misbehaves in front of a real MQTT broker")
    broker_command.add_arguments(broker)
    broker.set_defaults(run=broker_command.run)
    sim_fleet.add_parser(devices)
    plant = devices.add_parser("plant", help="a power plant's AGC, AVC and frequency behaviour on Modbus")
    plant_command.add_arguments(plant)
    plant.add_argument("--clock", help=argparse.SUPPRESS)
    plant.set_defaults(run=lambda args: plant_command.run(args, open_clock(args.clock)))
