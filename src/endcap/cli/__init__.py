"""The command line: one thin command for each thing a shop can do."""
