"""What a guard's certificate says, in words: who judged the student that is kept, by what, and at which error."""

from ..metrics import Judgement


def certificate_text(judgement: Judgement, *, images: int, level: float, noun: str) -> str:
    """What speaks for a student that is kept, in a few sentences.

    Args:
        judgement: the judgement of the student that is kept.
        images: number of guard images.
        level: error of the test.
        noun: what a sample is.
    """
    told = {"accuracy": _by_labels, "posterior": _by_posterior, "votes": _by_votes, "information": _by_information}
    return told[judgement.measure](judgement, f"{images:,} guard {noun}s", level)


def _by_labels(judgement: Judgement, samples: str, level: float) -> str:
    return (
        f"By labels: on {samples} it is right on {judgement.gained:,} that the old student has wrong, "
        f"and wrong on {judgement.lost:,} that it has right (exact one-sided test: p = {judgement.p_value:.2g}, "
        f"{level:.2g} allowed). That any student is kept that is not better has a probability of 5 % at most."
    )


def _by_posterior(judgement: Judgement, samples: str, level: float) -> str:
    old = "the old student with its statistics re-estimated" if judgement.over_adapted else "the old student"
    return (
        f"By the frozen models, without labels: on {samples} the teachers and {old} together hold its "
        f"answers to be right {judgement.gain:.2f} points more often, beyond a toll on each changed answer (p = "
        f"{judgement.p_value:.2g}, {level:.2g} allowed). This is no proof: what these models all get wrong they "
        "cannot see. Referees or a few labels could."
    )


def _by_votes(judgement: Judgement, samples: str, level: float) -> str:
    return (
        f"By referees, without labels: on {samples} models that did not teach hold its answers to be "
        f"right {judgement.gain:.2f} points more often (evidence {1 / max(judgement.p_value or 0.0, 1e-300):.3g} to 1, "
        f"{1 / level:.3g} needed), and none of them surely votes against it. It is wrong with a probability of 5 % at "
        "most if they err independently of the student and its teachers."
    )


def _by_information(judgement: Judgement, samples: str, level: float) -> str:
    del level
    return (
        "By information, without labels: with its batch-norm statistics re-estimated the old student tells the "
        f"{samples} apart better, by {judgement.gain:.3f} nats. This is no proof, and nothing was "
        "learned."
    )
