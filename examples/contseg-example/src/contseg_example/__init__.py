"""A method, a dataset, a backbone and a head for contseg; the entry points in pyproject.toml make them known."""
