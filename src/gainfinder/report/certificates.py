"""What a certificate says, in words: of a few labels, and of a limit on changed answers."""

from ..results import Certificate, GuardDecision
from .rows import counted

ANSWERS = {"better": "Yes, by labels.", "not better": "No, by labels.", "not yet known": "Not yet known."}


def certificate_text(certificate: Certificate, *, noun: str) -> str:
    """What the answers said, in a few sentences.

    Args:
        certificate: what the answers said.
        noun: what a sample is.
    """
    told = (
        f"Of {counted(certificate.answers, noun)} whose answer changed, labelled blind and in random order, the new "
        f"student is right on {certificate.right_new} and the old one on {certificate.right_old}."
    )
    low, high = certificate.delta_ci_pp
    range_ = f"Accuracy on these {counted(certificate.images, noun)} changes by "
    if certificate.answers == certificate.changed:  # all that changed are known
        range_ += f"{low:+.2f} points: all of them are known."
    else:
        range_ += f"{low:+.2f} to {high:+.2f} points (95 %, whenever one stops)."
    return " ".join([_verdict(certificate, noun), told, range_, *_kept(certificate)])


def harm_text(guard: GuardDecision, *, noun: str) -> str | None:
    """The largest loss that the limit on changed answers leaves, in words; None without a limit or a new student."""
    kept = (guard.alpha, guard.bn_reestimated)
    point = next((one for one in guard.points if (one.alpha, one.bn_reestimated) == kept), None)
    if guard.at_most is None or point is None or point.most_changed is None or point.changed is None:
        return None
    return (
        f"On {counted(guard.images, f'guard {noun}')} {point.changed:.2%} of the answers change, on {noun}s like these "
        f"at most {point.most_changed:.2%} (an exact bound; that more than {guard.at_most:.3g} of them change has a "
        "probability of 5 % at most): accuracy cannot fall by more, whatever the labels are."
    )


def _verdict(certificate: Certificate, noun: str) -> str:
    error = f"with an error of {certificate.level:.0%} at most"
    after = counted(certificate.decided_after or 0, "answer")
    if certificate.verdict == "better":
        return f"The new student is better than the one that you gave: known after {after}, {error}."
    if certificate.verdict == "not better":
        return (
            "The new student is not better than the one that you gave (worse, or at best as good): known after "
            f"{after}, {error}."
        )
    answers, left = counted(certificate.answers, "answer"), certificate.changed - certificate.answers
    if not left:
        return f"{answers} cannot tell of {noun}s like these, and no other answer changed: more guard {noun}s could."
    return f"{answers} cannot tell yet; {counted(left, f'more {noun}')} could."


def _kept(certificate: Certificate) -> list[str]:
    if certificate.verdict == "better" and not certificate.kept:
        return ["Its weights are not in the folder: run the transfer again to get them."]
    if certificate.verdict == "not better" and certificate.kept:
        return ["It is in student/ all the same: use your old one."]
    return ["It is the one in student/."] if certificate.verdict == "better" else []
