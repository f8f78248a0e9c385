"""A result's student for others: put on a model hub, as plain timm or transformers load it.

In: a result folder. Out: a repository.
Imports: errors, references, files, libraries, models, results, report.
"""

from .push import PushedStudent, push_student

__all__ = ["PushedStudent", "push_student"]
