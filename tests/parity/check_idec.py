"""Golden files of IDEC, and of SSUL below it."""
