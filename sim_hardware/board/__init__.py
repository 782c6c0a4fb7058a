"""A simulated ESP32: its ROM loader as esptool sees it and its MicroPython prompt as mpremote sees it, on one pty."""
