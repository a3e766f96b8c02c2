"""Golden files of SDR."""
