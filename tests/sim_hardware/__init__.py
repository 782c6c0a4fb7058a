"""Tests of the simulated meters, made with real masters: pymodbus' client, mbpoll, bytes by hand."""
