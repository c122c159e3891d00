"""The peers' side of the harness: one process per peer and setting."""
