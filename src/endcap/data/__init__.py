"""From raw files to cleaned tables: readers, importers, checks, cleaning rules, splits and the event store."""
