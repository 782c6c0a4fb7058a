"""Meter types and their register images, made from measured values (`model.py`) by each maker's register map."""

from sim_hardware.meters.eastron import SDM120, SDM630
from sim_hardware.meters.peacefair import PZEM004T
from sim_hardware.meters.types import Field, Image, MeterType

TYPES: dict[str, MeterType] = {meter.name: meter for meter in (SDM120, SDM630, PZEM004T)}
# Names of the same meters elsewhere (boxes, lists of meter maps).
ALIASES = {"eastron-sdm120": "sdm120", "eastron-sdm630": "sdm630", "peacefair-pzem-004t-v3": "pzem004t",
           "pzem-004t": "pzem004t", "pzem": "pzem004t"}


def type_called(name: str) -> MeterType | None:
    """The meter type of that name or alias."""
    return TYPES.get(ALIASES.get(name.lower(), name.lower()))


__all__ = ["TYPES", "Field", "Image", "MeterType", "type_called"]
