"""Other recommender systems on the leave-one-out benchmark, each in an environment of its own, tuned on validation.

`run.run_peers` builds the environments and runs the scripts; `protocol` and `contest` are what the scripts share.
"""
