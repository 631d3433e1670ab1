"""The mathematics of the search: arrays in, arrays out, nothing of Optuna.

Read :mod:`.surrogate` first; it fixes the notation. :mod:`.design` and :mod:`.acquisition` say
what to train next, :mod:`.stopping` how certain the answer is, and :mod:`.curves` what a training
will end at.
"""
