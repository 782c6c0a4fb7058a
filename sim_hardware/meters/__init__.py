"""Meter types and their register images, made from measured values (`model.py`) by each maker's register map."""

from sim_hardware.meters.abb import B21, B23
from sim_hardware.meters.chint import DDSU666, DTSU666
from sim_hardware.meters.eastron import SDM72D, SDM72D_V2, SDM120, SDM230, SDM630
from sim_hardware.meters.gavazzi import EM24, EM340
from sim_hardware.meters.growatt import RTU2, TLXH
from sim_hardware.meters.janitza import UMG96RM
from sim_hardware.meters.orno import WE514, WE516
from sim_hardware.meters.peacefair import PZEM004T
from sim_hardware.meters.schneider import IEM3155
from sim_hardware.meters.sma import SMA
from sim_hardware.meters.sunspec import DEVICES
from sim_hardware.meters.types import Field, Image, MeterType

TYPES: dict[str, MeterType] = {meter.name: meter for meter in (
    SDM120, SDM630, PZEM004T, SDM230, SDM72D, SDM72D_V2, B23, EM24, EM340, DDSU666, DTSU666, UMG96RM, WE514, WE516,
    IEM3155, RTU2, TLXH, SMA, B21, *DEVICES)}
# Names of the same meters elsewhere (boxes, lists of meter maps).
ALIASES = {
    "eastron-sdm120": "sdm120", "eastron-sdm630": "sdm630", "eastron-sdm230": "sdm230", "eastron-sdm72d": "sdm72d",
    "eastron-sdm72d-v2": "sdm72dv2", "peacefair-pzem-004t-v3": "pzem004t", "pzem-004t": "pzem004t", "pzem": "pzem004t",
    "abb-b23": "b23", "carlogavazzi-em24-rs485": "em24", "carlogavazzi-em340": "em340", "chint-ddsu666": "ddsu666",
    "chint-dtsu666": "dtsu666", "janitza-umg96rm": "umg96rm", "orno-we514": "we514", "orno-we516": "we516",
    "schneider-iem3155": "iem3155", "growatt-rtu2": "growatt_rtu2", "growatt-tlxh": "growatt_tlxh",
    "sma-modbus-profile": "sma"}


def type_called(name: str) -> MeterType | None:
    """The meter type of that name or alias."""
    return TYPES.get(ALIASES.get(name.lower(), name.lower()))


__all__ = ["TYPES", "Field", "Image", "MeterType", "type_called"]
