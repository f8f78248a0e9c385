"""Other libraries' training loops: what gainfinder does in a step, in the form that they call.

In: a module that another library's script trains, teachers by reference or as modules. Out: that library's own kind of
object, such as a `TrainingTask` of timm.
Imports: errors, losses, models, inference.
"""

from .timm_task import TransferTask

__all__ = [
    "TransferTask",
]
