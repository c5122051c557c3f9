"""From a query to a slate: candidates, features, score, selection, reasons."""
