"""Endcap: a shop's catalogue and behaviour logs, turned into live, personalised recommendations."""

__version__ = "0.1.0"
