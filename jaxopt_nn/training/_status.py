"""How a run ended."""

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """How a run ended. A result holds it as an int32; ``Status(int(result.status)).name`` is its name.

    Attributes:
        COMPLETED: all epochs were run. (During a run: nothing has ended it.)
        STOPPED_EARLY: the monitored value did not improve for ``patience`` epochs.
        NONFINITE_TRAINING: training losses or gradients were NaN or infinite ``nonfinite_limit`` times in a row, from
            ``first_bad_step`` on. The final state is the last finite one.
        NONFINITE_VALIDATION: the parameters were finite, but the validation loss was not.
        INTERRUPTED: ``fit`` was interrupted by Ctrl-C or by a callback.
    """

    COMPLETED = 0
    STOPPED_EARLY = 1
    NONFINITE_TRAINING = 2
    NONFINITE_VALIDATION = 3
    INTERRUPTED = 4
