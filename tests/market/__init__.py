"""The market tests."""
