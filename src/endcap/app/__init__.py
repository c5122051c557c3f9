"""The typed Python API, and the only place where the rooms are wired together."""
