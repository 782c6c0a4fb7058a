"""Tests of the command and of what it sets up."""
