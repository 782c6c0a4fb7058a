"""Tests of the contracts: what every rule decides."""
