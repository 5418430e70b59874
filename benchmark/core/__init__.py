"""Parameters, cells and their keys, the store, stages, processes: no computation of results."""
