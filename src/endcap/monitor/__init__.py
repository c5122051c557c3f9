"""What a running shop tells those who watch over it."""
