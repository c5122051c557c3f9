"""HTTP over the app: a handler parses, calls one typed function of the shop, and returns."""
