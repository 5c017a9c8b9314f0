"""Programs: which components a graph is linked from, how they are wired, and what its inputs and outputs mean."""
