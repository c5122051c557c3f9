"""Arrays -> trained artefacts. Files that fit may import torch; files that serve must not."""
