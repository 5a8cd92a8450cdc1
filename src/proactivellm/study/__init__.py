"""Studies: several ways to train or to decide, on the same data, in one table."""
