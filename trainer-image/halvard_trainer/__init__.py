"""What a trial and its collector sidecar import: the standard library alone."""
