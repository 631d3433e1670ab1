"""Knowledge transfer: a new shape starts from a trained one instead of from random weights.

    study.optimize(problem.objective(transfer(train)), ...)

Off by default, for two reasons. An accuracy then depends on what was trained before it, so a
search in another order learns other accuracies. And a shape is trained for longer in effect the
later it comes, which a comparison of shapes at equal training does not want.
"""

from optuna_shape.records import INHERITED
from optuna_shape.records import PARENT
from optuna_shape.records import TEACHER
from optuna_shape.train.transfer.loop import TaughtLoop
from optuna_shape.train.transfer.loop import transfer
from optuna_shape.train.transfer.networks import Inherited
from optuna_shape.train.transfer.networks import inherit

__all__ = [
    "INHERITED",
    "PARENT",
    "TEACHER",
    "Inherited",
    "TaughtLoop",
    "inherit",
    "transfer",
]
