"""Makes a board into a meter agent: `gridseal flash` (command.py), by the steps in steps.py."""
