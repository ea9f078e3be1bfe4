"""The crank on one machine: trials are processes, the store is a directory of results."""
