"""The review of large tables on a Ray cluster: `run` has the parts of `levit_batch.results.near` done by its nodes."""
