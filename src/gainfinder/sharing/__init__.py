"""A result's student for others: on a model hub, as plain timm or transformers load it, and as an ONNX file.

In: a result folder. Out: a repository, or a file and how its answers differ.
Imports: errors, references, files, libraries, predictions, metrics, data, models, inference, results, report.
"""

from .export import ExportedStudent, export_student
from .push import PushedStudent, push_student

__all__ = ["ExportedStudent", "PushedStudent", "export_student", "push_student"]
