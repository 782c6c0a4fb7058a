"""The contract: every byte that leaves a meter or a gateway, from values, and back; the same files on ESP32, Pi and gateway."""
