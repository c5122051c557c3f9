"""Cleaned tables become arrays, and a user's events become the state that sources and the ranker read."""
