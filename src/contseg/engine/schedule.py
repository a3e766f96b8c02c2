"""Learning-rate schedules, as multiples of the starting rate."""

from contseg.engine.options import TrainingOptions


def lr_multiple(options: TrainingOptions, update: int, updates: int) -> float:
    """The multiple of the learning rate at an update, 0-based, of a step with this many updates.

    `poly` is (1 - i/I)^power: from 1, and just above 0 at the last update.

    Example:
        >>> [round(lr_multiple(TrainingOptions(), i, 4), 3) for i in range(4)]
        [1.0, 0.772, 0.536, 0.287]
    """
    done = update / updates
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "step":
        return options.gamma ** sum(done >= milestone for milestone in options.milestones)
    poly = (1 - done) ** options.power
    if options.schedule == "warm-poly":
        rise = max(1, round(options.warmup * updates))
        return poly * min(1.0, (update + 1) / rise)
    return poly
