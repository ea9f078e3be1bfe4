"""What the results so far say about results to come."""
