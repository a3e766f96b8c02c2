"""Learning-rate schedules."""

from contseg.engine.options import TrainingOptions


def lr_multiple(options: TrainingOptions, update: int, updates: int, late: bool = False) -> float:
    """The multiple of the learning rate at an update, 0-based, of a step with this many updates.

    `poly` is (1 - floor) (1 - i/I)^power + floor: it starts at 1 and ends just above the floor. `warm-poly` multiplies it
    by a linear warm-up: over a share of the updates, or by 1 - (1 - i/w)(1 - ratio) up to update w as in the toolbox of
    IDRNet. `warm-twice` is i/w up to update w, then poly of what is left.

    Args:
        late: whether the rate of a backbone waits for the first warm-up of `warm-twice` and has the second one.

    Example:
        >>> [round(lr_multiple(TrainingOptions(), i, 4), 3) for i in range(4)]
        [1.0, 0.772, 0.536, 0.287]
        >>> warm = TrainingOptions(schedule="warm-poly", power=1.0, warmup_updates=2, warmup_ratio=0.1)
        >>> [round(lr_multiple(warm, i, 4), 4) for i in range(4)]
        [0.1, 0.4125, 0.5, 0.25]
        >>> [lr_multiple(TrainingOptions(schedule="step", milestone_every=2), i, 4) for i in range(4)]
        [1.0, 1.0, 0.1, 0.1]
        >>> twice = TrainingOptions(schedule="warm-twice", power=1.0, warmup_updates=2, backbone_warmup_updates=2)
        >>> [lr_multiple(twice, i, 8, late=True) for i in range(8)]
        [0.0, 0.0, 0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if options.schedule == "warm-twice":
        return _after_warm_ups(options, update, updates, late)
    done = update / updates
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "step" and options.milestone_every is not None:
        return options.gamma ** (update // options.milestone_every)
    if options.schedule == "step":
        return options.gamma ** sum(done >= milestone for milestone in options.milestones)
    poly = (1 - options.floor) * (1 - done) ** options.power + options.floor
    if options.schedule == "warm-poly" and options.warmup_updates is not None:
        missing = max(0.0, 1 - update / options.warmup_updates)
        return poly * (1 - missing * (1 - options.warmup_ratio))
    if options.schedule == "warm-poly":
        rise = max(1, round(options.warmup * updates))
        return poly * min(1.0, (update + 1) / rise)
    return poly


def _after_warm_ups(options: TrainingOptions, update: int, updates: int, late: bool) -> float:
    """`warm-twice`: 0 for a time, a linear rise, and poly of the updates that are left."""
    wait = 0
    rise = options.warmup_updates or max(1, round(options.warmup * updates))
    if late:
        wait, rise = rise, options.backbone_warmup_updates or max(1, round(options.backbone_warmup * updates))
    since = update - wait
    if since < rise:
        return max(0, since) / rise
    left = max(0.0, 1 - (since - rise) / max(1, updates - wait - rise))
    return (1 - options.floor) * left**options.power + options.floor


def learning_rate(
    options: TrainingOptions, step: int, update: int, updates: int, factor: float = 1.0, late: bool = False
) -> float:
    """The learning rate of a parameter group at an update, 0-based, of a step with this many updates.

    Args:
        factor: learning-rate factor of the group.
        late: see `lr_multiple`.

    Example:
        >>> [learning_rate(TrainingOptions(lr=0.1, lr_min=0.02), 0, update, 10, 0.5) for update in (0, 9)]
        [0.05, 0.02]
    """
    rate = options.lr_of(step) * factor * lr_multiple(options, update, updates, late)
    return max(rate, options.lr_min) if factor else 0.0  # a factor of 0 freezes the group, in spite of lr_min
