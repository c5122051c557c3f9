"""The thin floor: types, tables, plug points, errors, artefacts. Imports nothing else of Endcap."""
