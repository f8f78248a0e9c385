"""What is said of a transfer whose training has diverged: since when, what was kept, what to do."""

from ..errors import Diverged
from ..results import Divergence, TransferMetrics
from .result import TransferResult


def refuse_diverged(result: TransferResult, *, precision: str) -> None:
    """Raise where training diverged, or that of the partner did; the result, which is complete, goes with the error.

    Args:
        result: the result.
        precision: Accelerate's word for the precision of training.

    Raises:
        Diverged: it did.
    """
    both = [one for one in (result, result.partner) if one is not None]
    one = next((one for one in both if one.metrics.diverged is not None), result)
    found = one.metrics.diverged
    if found is None:
        return
    remedy = _remedy(found, one.metrics, precision) + ("" if result.out is None else ", and another `out`")
    message = f"training diverges: {_since(found)}; {_kept(one, found)}. {remedy}"
    raise Diverged(message, epoch=found.epoch, step=found.step, reason=found.reason, result=result)


def refuse_diverged_control(control: TransferResult, name: str, *, beside: TransferResult, precision: str) -> None:
    """Raise where the training of a control diverged: its numbers would be no ceiling and no adaptation.

    Args:
        control: the control.
        name: its name.
        beside: the transfer that it is a control of, which goes with the error.
        precision: Accelerate's word for the precision of training.

    Raises:
        Diverged: it did.
    """
    found = control.metrics.diverged
    if found is None:
        return
    message = (
        f"the transfer is complete, but its control {name!r} diverges: {_since(found)}; the result has no measures of "
        f"it. {_remedy(found, control.metrics, precision)}, or go without `control`"
    )
    raise Diverged(message, epoch=found.epoch, step=found.step, reason=found.reason, result=beside)


def _since(found: Divergence) -> str:
    return found.text + ("" if found.teacher is None else f" (teacher {found.teacher})")


def _kept(result: TransferResult, found: Divergence) -> str:
    where = "the result that comes with this error" if result.out is None else str(result.out / "student")
    metrics, whole = result.metrics, max(0, len(result.metrics.steps) - 1)
    if metrics.strategy == "soup" and whole:
        return f"{where} holds the soup of the {whole} student(s) of the teachers before"
    given = f"as it was after {whole} teacher(s)" if whole else "as it was given"
    if found.kept_epoch == 0:
        return f"no epoch was finished before, and {where} holds the student {given}"
    guard = metrics.guard or (metrics.steps[-1].guard if metrics.steps else None)
    if guard is not None and guard.kept_initial:
        return f"{where} holds the student {given}: the guard did not keep that after {found.kept_epoch} epoch(s)"
    guarded = "" if guard is None else " and guard"
    return f"{where} holds the student as it was before, after {found.kept_epoch} epoch(s){guarded}"


def _remedy(found: Divergence, metrics: TransferMetrics, precision: str) -> str:
    full = "" if precision == "no" else " or `precision='fp32'`"
    if found.epoch == 1 and found.step == 1:
        return (
            "Nothing was learned by then: are the student's logits finite in training mode, does it mask classes that "
            f"others answer, or are logits beyond what float32 holds? Give another student or `method`{full}"
        )
    rate = "" if metrics.learning_rate is None else f" than {metrics.learning_rate:g}"
    return f"Give a lower `lr`{rate}{full}"
