"""How good a ranking is, on whom it was measured, and how sure one may be of the difference."""
