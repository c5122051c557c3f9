"""The routes of Gorse, under /api: a shop that speaks to it comes over by changing a URL."""
