"""Golden files of LAG."""
