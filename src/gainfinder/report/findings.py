"""What a transfer means, in plain words: from numbers alone, so that each sentence can be tested."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..config import default_method, find_method
from ..metrics import ClassKnowledge, GainAttribution, attribute_gains, by_class, wilson_interval
from ..references import short_names
from ..results import ControlMetrics, GuardDecision
from .certificates import ANSWERS, certificate_text, harm_text
from .records import TransferRecord
from .rows import counted, quoted

T = TypeVar("T")
Tone = Literal["good", "bad", "open"]
BETTER, WORSE = "Is it better?", "How much worse can it be?"
"""What guard and labels answer."""
NAMED_CLASSES = 3
SURE_ERRORS = 2
"""Standard deviations above what is expected that count as more than chance."""
LITTLE = 0.01
"""A share of images that is little to learn from a teacher."""
LOW_RATE = 0.25
"""A share of what a teacher could show that leaves much to learn from it."""
NOT_SURE = (
    "Without labels it passes over gains that the frozen models' answers do not show. Models that did not teach "
    "(--referee), or a few labels of changed {noun}s (gainfinder ask), may show them."
)
WIDE_INTERVAL_BELOW = 2000
"""With fewer to measure on, gains of about a point are hard to tell from noise."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a reader should know.

    Attributes:
        question: the question that it answers.
        answer: the answer in a few words.
        text: the evidence.
        tone: whether it speaks for the new student.
    """

    question: str
    answer: str
    text: str
    tone: Tone = "open"


def findings(record: TransferRecord) -> list[Finding]:
    """What was learned, what was lost, whether it is more than noise and more than adaptation.

    For images without labels only this is known: how much the student's predictions changed, and towards which teacher.
    """
    if not record.labelled:
        moved = [*_diverged(record), _moved(record), *_taught_live(record), *_certified(record)]
        return [*moved, *_guarded_without_labels(record), *_harmless(record)]
    classes = by_class(record.before, record.after, record.known_teachers)
    found = [_noise(record), _learned(record, classes), _lost(record, classes), *_ceilings(record)]
    if record.metrics.knowledge_gain or record.metrics.control or _is_control(record):
        found.append(_adaptation(record, attribute_gains(record.before, record.after, record.known_teachers)))
    return [*_diverged(record), *found, *_taught_live(record), *_certified(record), *_harmless(record)]


def _diverged(record: TransferRecord) -> list[Finding]:
    """That training did not come to its end, first of all."""
    found = record.metrics.diverged
    if found is None:
        return []
    if found.teacher is not None:
        kept = "This result is about what was learned before."
    elif found.kept_epoch:
        kept = f"This result is about what was learned before, in {found.kept_epoch} epoch(s)."
    else:
        kept = "No epoch was finished before: the student is as it was given."
    whose = "" if found.teacher is None else f", with teacher {found.teacher}"
    return [
        Finding(
            question="Did training come to its end?",
            answer="No, it diverged",
            text=f"{found.text[0].upper()}{found.text[1:]}{whose}. {kept} A lower learning rate (--lr) may help.",
            tone="bad",
        )
    ]


def _taught_live(record: TransferRecord) -> list[Finding]:
    """That the teacher learned meanwhile."""
    if record.config.settings.get("both") != "live":
        return []
    return [
        Finding(
            question="Was the teacher frozen?",
            answer="No, it learned meanwhile.",
            text="Both models were trained in step (--both live), each on what the other answered by then. What this "
            "page says of the teacher's knowledge is of the teacher as it was given.",
        )
    ]


def next_steps(record: TransferRecord) -> list[str]:
    """What to try next, the likeliest to help first; nothing of a step, after which its sequence has gone on."""
    metrics, steps = record.metrics, []
    if record.is_step:
        return []
    if _is_control(record):
        return ["Compare it with the same transfer from another teacher: what this one gains is adaptation."]
    if not find_method(metrics.method).needs_teachers:
        return ["Compare it with the same transfer from a teacher: this one learned from the labels alone."]
    if not record.labelled:
        return [
            f"Measure on labelled {record.noun}s (--val): without labels nobody can tell whether the student got "
            "better."
        ]
    low, high = _known(metrics.transfer_delta_ci_pp)
    flips, rate = metrics.positive_flips, metrics.transfer_rate
    whose = "the teacher" if len(record.teachers) == 1 else "the teachers"
    method = find_method(metrics.method)
    if flips is not None and flips < LITTLE:
        steps.append(
            f"Find a teacher that knows more that this student does not: here it is {flips:.2%} of the {record.noun}s. "
            "`gainfinder scan` compares as many models as you have."
        )
    if not method.needs_initial_student and _known(metrics.knowledge_loss) >= _known(metrics.knowledge_gain):
        better = default_method(labelled=record.config.settings.get("labels") == "use")
        steps.append(
            f"{method.name} learns from the teacher everywhere, also where it is wrong: try --method {better}."
        )
    if high < 0:
        guard = "" if record.guards else ", or leave the guard on"
        steps.append(f"Keep the old student; try a lower --lr or fewer --epochs{guard}.")
    elif low <= 0:
        steps += _towards_a_sure_gain(record, rate)
    else:
        guarded = "; each step is guarded" if record.guards else ""
        steps.append(f"Let another teacher go on from here: repeat --teacher{guarded}.")
        if rate is not None and rate < LOW_RATE:
            steps.append(
                f"Only {rate:.0%} of what {whose} could show arrived: more --epochs or {record.noun}s may help."
            )
    if high >= 0 and metrics.knowledge_gain and metrics.control is None:
        how = "add --control copy to the same command"
        if record.steps:  # several transfers in one, which --control does not go with
            how = f"a transfer with --teacher {shlex.quote(metrics.student)} and another --out"
        steps.append(
            f"To find out how much of it is mere adaptation, run the control: {how}. From its own copy a student can "
            "only adapt."
        )
    return steps


def _towards_a_sure_gain(record: TransferRecord, rate: float | None) -> list[str]:
    steps = []
    if any(guard.kept_initial for guard in record.guards):
        samples = counted(record.guards[0].images, record.noun)
        steps.append(f"The guard had {samples} to judge by and saw no sure gain: give it more (--guard-data).")
        if record.metrics.guard is not None and record.metrics.guard.offered_alpha is not None:
            steps.append(
                f"A student waits in candidate/: gainfinder ask {shlex.quote(str(record.folder))} asks for labels of a "
                f"few {record.noun}s whose answer changed, and puts it in your student's place if they prove it better."
            )
    if record.metrics.samples < WIDE_INTERVAL_BELOW:
        steps.append(f"Measure on more {record.noun}s (--val): {record.metrics.samples:,} cannot show a small gain.")
    if not record.known_teachers or (rate is not None and rate < LOW_RATE):
        steps.append(f"Learn from more {record.noun}s (--data) or for longer (--epochs).")
    return steps


def _noise(record: TransferRecord) -> Finding:
    metrics = record.metrics
    delta, (low, high) = metrics.transfer_delta_pp, _known(metrics.transfer_delta_ci_pp)
    text = (
        f"Accuracy went from {metrics.accuracy_before:.2%} to {metrics.accuracy_after:.2%}: {delta:+.2f} points, "
        f"95 % interval {low:+.2f} to {high:+.2f}, on {counted(metrics.samples, record.noun)}. It tells how far "
        f"these {record.noun}s could have decided it, not what another seed or other transfer {record.noun}s would do."
    )
    question = "Is the change larger than its noise?"
    if metrics.agreement == 1:
        kept = record.guards and all(guard.kept_initial for guard in record.guards)
        text += " The guard kept the student that you gave." if kept else ""
        return Finding(question=question, answer="No answer changed.", text=text)
    if low > 0:
        return Finding(question=question, answer="Yes, the student is better.", text=text, tone="good")
    if high < 0:
        return Finding(question=question, answer="Yes, the student is worse.", text=text, tone="bad")
    return Finding(question=question, answer="No: it may be chance.", text=text)


def _learned(record: TransferRecord, classes: Sequence[ClassKnowledge]) -> Finding:
    metrics = record.metrics
    there = sum(one.positive_flips for one in classes)
    arrived = sum(one.transferred for one in classes)
    gained = sum(one.gained for one in classes)
    text = f"{_turned(gained, 'wrong', 'right', noun=record.noun)} ({_interval(gained, metrics.samples)})"
    if not record.known_teachers:
        text += f"{_where(classes, 'gained')}. Of the teacher no predictions for these {record.noun}s are known."
    elif there:
        text += (
            f". {_the_teachers(record)} had {counted(there, record.noun)} right that the student had wrong; of these, "
            f"{arrived:,} {_are(arrived)} right now ({arrived / there:.0%}){_where(classes, 'transferred')}."
        )
    else:
        text += f". {_the_teachers(record)} had nothing right that the student had wrong: there was nothing to learn."
    return Finding(
        question="What was learned?",
        answer="Nothing." if not gained else f"{gained / metrics.samples:.2%} of all {record.noun}s.",
        text=text,
        tone="good" if gained else "open",
    )


def _lost(record: TransferRecord, classes: Sequence[ClassKnowledge]) -> Finding:
    lost, samples = sum(one.lost for one in classes), record.metrics.samples
    if not lost:
        return Finding(
            question="What was lost?", answer="Nothing.", text=f"No {record.noun} that was right is wrong now."
        )
    text = f"{_turned(lost, 'right', 'wrong', noun=record.noun)} ({_interval(lost, samples)}){_where(classes, 'lost')}."
    return Finding(
        question="What was lost?", answer=f"{lost / samples:.2%} of all {record.noun}s.", text=text, tone="bad"
    )


def _ceilings(record: TransferRecord) -> list[Finding]:
    """What there was to win, from the teachers and from true labels, and how much of it the student has."""
    metrics, told, answer = record.metrics, [], "It is not known."
    if metrics.headroom_pp is not None:
        answer = f"{metrics.headroom_pp:+.2f} points." if metrics.headroom_pp > 0 else "Nothing by an ensemble."
        mean = (
            "" if metrics.mean_accuracy is None else f", the mean of all calibrated answers {metrics.mean_accuracy:.2%}"
        )
        told.append(
            f"Of these {record.noun}s the surest of student and teachers has {metrics.routed_accuracy:.2%} right{mean}"
            f", and {metrics.oracle_accuracy:.2%} is right by one of them at least; the student before had "
            f"{metrics.accuracy_before:.2%}."
        )
    if metrics.headroom_captured is not None:
        told.append(
            f"Of the {metrics.headroom_pp:.2f} points that the better ensemble has over it, the student that is kept "
            f"captured {metrics.headroom_captured:.0%}."
        )
    labels = metrics.control_labels
    if labels is not None:
        low, high = _known(labels.transfer_delta_ci_pp)
        share = labels.captured_of_labels
        told.append(
            f"From the true labels of the transfer {record.noun}s the same recipe gives "
            f"{labels.transfer_delta_pp:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
            + ("." if share is None else f"; {share:.0%} of that was captured.")
        )
    return [Finding(question="What was there to win?", answer=answer, text=" ".join(told))] if told else []


def _adaptation(record: TransferRecord, gains: GainAttribution) -> Finding:
    question = f"Is it knowledge, or mere adaptation to the {record.noun}s?"
    if not find_method(record.metrics.method).needs_teachers:
        return Finding(
            question=question,
            answer="Labels: no teacher taught.",
            text="The student learned from the labels alone: what it gained is what this recipe makes of them.",
        )
    if _is_control(record):
        return Finding(
            question=question,
            answer="Adaptation: this is the control.",
            text="The student was its own teacher, so nothing could be learned from another model.",
        )
    guard = record.metrics.guard
    if guard is not None and guard.bn_reestimated:
        return Finding(
            question=question,
            answer="Mere adaptation.",
            text="The guard kept the student that you gave with its batch-norm statistics re-estimated on the transfer "
            f"{record.noun}s, and nothing that it learned.",
        )
    control = record.metrics.control
    if control is not None and control.beyond_ci_pp is not None:
        return _beyond_control(question, control)
    answer, text = _by_attribution(gains, noun=record.noun)
    return Finding(question=question, answer=answer, text=" ".join([text, *_by_guard(guard, noun=record.noun)]).strip())


def _beyond_control(question: str, control: ControlMetrics) -> Finding:
    """What the control says, which is conclusive where `_by_attribution` only hints."""
    (low, high), beyond = _known(control.beyond_ci_pp), control.beyond_pp
    own_low, own_high = _known(control.transfer_delta_ci_pp)
    text = (
        "Learning as long from its own copy, which has nothing to teach it, the student changed by "
        f"{control.transfer_delta_pp:+.2f} points (95 % interval {own_low:+.2f} to {own_high:+.2f}): that much is "
        f"adaptation. The student that is kept is {beyond:+.2f} points from that one ({low:+.2f} to {high:+.2f})."
    )
    if low > 0:
        answer = f"Knowledge: {beyond:+.2f} points more than adaptation gives."
        return Finding(question=question, answer=answer, text=text, tone="good")
    if high < 0:
        return Finding(question=question, answer="Less than adaptation alone gives.", text=text, tone="bad")
    return Finding(question=question, answer="It cannot be told from adaptation.", text=text)


def _by_attribution(gains: GainAttribution, *, noun: str) -> tuple[str, str]:
    """Whether gains lie where the teacher could show them; a hint and no proof, as the text says."""
    if not gains.known or not gains.unknown:
        return "It cannot be told.", f"There are not both: {noun}s that a teacher could show, and {noun}s it could not."
    known, unknown = gains.known_gained / gains.known, gains.unknown_gained / gains.unknown
    text = (
        f"The student gained {known:.0%} of the {counted(gains.known, noun)} that a teacher could show it, and "
        f"{unknown:.0%} of the {gains.unknown:,} that it had wrong as all teachers had. Of the former that is "
        f"{gains.known_gained:,}; {gains.expected:.1f} ± {gains.error:.1f} would be expected if {noun}s that were "
        "as nearly right before were gained alike, whether a teacher knows them or not."
    )
    if gains.known_gained > gains.expected + SURE_ERRORS * gains.error:
        text += " That is more than chance, yet no proof: any learning finds first what others find easy, too."
        return "It speaks for the teacher's knowledge.", text
    text += " The two are too close, or too few, to tell knowledge from adaptation, which gains on both kinds."
    return "It may be mere adaptation.", text


def _by_guard(guard: GuardDecision | None, *, noun: str) -> list[str]:
    """The effect of re-estimated batch-norm statistics alone on the guard's samples, as a sentence."""
    if guard is None or not guard.labelled:
        return []
    gains = {(point.alpha, point.bn_reestimated): point.gain for point in guard.points}
    adapted, kept = gains.get((0.0, True)), gains.get((guard.alpha, False))
    if adapted is None or kept is None:
        return []
    return [
        f"On the guard's {noun}s, batch-norm statistics re-estimated on the transfer {noun}s change the accuracy by "
        f"{adapted:+.2f} points without any learning; the student that is kept changes it by {kept:+.2f}."
    ]


def _moved(record: TransferRecord) -> Finding:
    metrics = record.metrics
    names = short_names(list(metrics.teachers))
    pairs = dict(zip(metrics.teachers, metrics.agreement_with_teachers, strict=True))
    nearer = [
        f"agreement with {quoted(names[teacher])} went from {there[0]:.1%} to {there[1]:.1%}"
        for teacher, there in pairs.items()
        if there
    ]
    text = (
        f"The {record.noun}s measured on carry no labels, so nobody can tell right from wrong. On "
        f"{1 - metrics.agreement:.1%} of {counted(metrics.samples, record.noun)} the student answers differently now"
    )
    return Finding(
        question="What changed?",
        answer=f"{1 - metrics.agreement:.1%} of the answers.",
        text="; ".join([text, *nearer]) + ".",
    )


def _certified(record: TransferRecord) -> list[Finding]:
    """What a few labels said."""
    certificate = record.metrics.certificate
    if certificate is None:
        return []
    tones: dict[str, Tone] = {"better": "good", "not better": "bad"}
    return [
        Finding(
            question=BETTER,
            answer=ANSWERS[certificate.verdict],
            text=certificate_text(certificate, noun=record.noun),
            tone=tones.get(certificate.verdict, "open"),
        )
    ]


def _harmless(record: TransferRecord) -> list[Finding]:
    """The largest loss that a limit on changed answers leaves."""
    text = None if record.metrics.guard is None else harm_text(record.metrics.guard, noun=record.noun)
    return [] if text is None else [Finding(question=WORSE, answer="Little.", text=text)]


def _guarded_without_labels(record: TransferRecord) -> list[Finding]:
    if record.metrics.certificate is not None and record.metrics.certificate.decided_after is not None:
        return []  # labels have the word
    if record.metrics.guard is None:
        return _guarded_by_step(record)
    guard = record.metrics.guard
    if guard.kept_initial:
        return [
            Finding(
                question=BETTER,
                answer="The guard was not sure.",
                text=f"It kept the student that you gave. {NOT_SURE.format(noun=record.noun)}",
            )
        ]
    if guard.bn_reestimated:
        text = (
            f"It kept your student with its batch-norm statistics re-estimated: adaptation to the {record.noun}s alone."
        )
    else:
        text = f"It kept the student at α = {guard.alpha:g} on the line from yours (0) to the trained one (1)."
    text = " ".join([text, *([guard.certificate] if guard.certificate else [])])
    return [Finding(question=BETTER, answer="The guard thinks so.", text=text, tone="good")]


def _guarded_by_step(record: TransferRecord) -> list[Finding]:
    """What the guards of a sequence's steps decided."""
    if not record.guards:
        return []
    passed = sum(not guard.kept_initial for guard in record.guards)
    of = f"{passed} of {counted(len(record.guards), 'step')}"
    if not passed:
        text = f"In no step was it sure. {NOT_SURE.format(noun=record.noun)}"
        return [Finding(question=BETTER, answer="The guard was not sure.", text=text)]
    text = f"It let through what was learned in {of}."
    return [Finding(question=BETTER, answer="The guard thinks so.", text=text, tone="good")]


def _where(classes: Sequence[ClassKnowledge], field: str) -> str:
    """Names of the classes with most samples in a field of `ClassKnowledge`."""
    top = sorted(classes, key=lambda one: -int(getattr(one, field)))[:NAMED_CLASSES]
    named = [f"{quoted(one.name)} ({getattr(one, field):,})" for one in top if getattr(one, field)]
    return f", the most in {'; '.join(named)}" if named and len(classes) > 1 else ""


def _interval(count: int, samples: int) -> str:
    low, high = wilson_interval(count, samples)
    return f"95 % interval {low:.2%} to {high:.2%}"


def _is_control(record: TransferRecord) -> bool:
    digests = {teacher.digest for teacher in record.config.teachers}
    return digests == {record.config.student.digest} != {None}


def _the_teachers(record: TransferRecord) -> str:
    """The teachers whose predictions are there, as the subject of a sentence."""
    names = short_names(list(record.metrics.teachers))
    pairs = zip(record.metrics.teachers, record.teachers, strict=True)
    known = dict.fromkeys(quoted(names[teacher]) for teacher, found in pairs if found is not None)
    return f"The teacher {next(iter(known))}" if len(known) == 1 else f"One or more of the teachers {', '.join(known)}"


def _turned(count: int, was: str, now: str, *, noun: str) -> str:
    """
    >>> _turned(1, "wrong", "right", noun="image"), _turned(0, "right", "wrong", noun="text")
    ('1 image that was wrong is right now', '0 texts that were right are wrong now')
    """
    return f"{counted(count, noun)} that {'was' if count == 1 else 'were'} {was} {_are(count)} {now} now"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _known(measure: T | None) -> T:
    """A measure that is not None, as all are for labelled images."""
    assert measure is not None, "for labelled images only"
    return measure
