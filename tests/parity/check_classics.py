"""Golden files of the methods that MiB's code base has beside it: LwF, LwF-MC, ILT, EWC, PI, RW."""
