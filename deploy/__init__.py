"""The `gridseal` command and everything that sets the rooms up and runs them, from arguments and configuration."""
