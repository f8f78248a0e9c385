"""What a transfer means, in plain words: from numbers alone, so that each sentence can be tested."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..breakdown import ClassKnowledge, Sources, by_class, by_source
from ..intervals import wilson_interval
from ..methods import find_method
from ..references import short_names
from .records import TransferRecord

Tone = Literal["good", "bad", "open"]
NAMED_CLASSES = 3
FEW_IMAGES = 2000
"""With fewer to measure on, gains of about a point are hard to tell from noise."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a reader should know.

    Attributes:
        question: that it answers.
        answer: in a few words.
        text: the evidence.
        tone: whether it speaks for the new student.
    """

    question: str
    answer: str
    text: str
    tone: Tone = "open"


def findings(record: TransferRecord) -> list[Finding]:
    """What was learned, what was lost, whether it is more than noise and more than adaptation.

    Of images without labels only this can be told: how far the student moved, and towards whom.
    """
    if not record.labelled:
        return [_moved(record), *_guarded_without_labels(record)]
    if not record.known_teachers:
        return [_noise(record)]
    classes = by_class(record.before, record.after, record.known_teachers)
    found = [_noise(record), _learned(record, classes), _lost(record, classes)]
    if record.account["agreement"] < 1:
        found.append(_adaptation(record, by_source(record.before, record.after, record.known_teachers)))
    return found


def next_steps(record: TransferRecord) -> list[str]:
    """What to try next, the likeliest to help first."""
    account, steps = record.account, []
    student = account["student"]
    if not record.labelled:
        return ["Measure on labelled images (--val): without labels nobody can tell whether the student got better."]
    low, high = account["transfer_delta_ci_pp"]
    flips, rate = account["positive_flips"], account["transfer_rate"]
    method = find_method(account["method"])
    if flips is not None and flips < 0.01:
        steps.append(
            f"Find a teacher who knows more that this student does not: here it is {flips:.2%} of the images. "
            "`gainfinder scan` compares as many models as you have."
        )
    if method.partition is None and account["knowledge_loss"] >= account["knowledge_gain"]:
        better = "kl-dp" if record.config["settings"]["labels"] == "use" else "kl-dp-u"
        steps.append(
            f"{method.name} learns from the teacher everywhere, also where it is wrong: try --method {better}."
        )
    if high < 0:
        steps.append("Keep the old student; try a lower --lr, fewer --epochs, or the guard if it was off.")
    elif low <= 0:
        steps += _towards_a_sure_gain(record, rate)
    else:
        steps.append("Let another teacher go on from here: repeat --teacher; each step is guarded.")
        if rate is not None and rate < 0.25:
            steps.append(f"Only {rate:.0%} of what the teacher could show arrived: more --epochs or images may help.")
    if account["agreement"] < 1 and not _is_control(record):
        steps.append(
            f"To be sure that it is knowledge, run the control: the same command with --teacher '{student}'. A student "
            "that learns from its own copy can only adapt."
        )
    return steps


def _towards_a_sure_gain(record: TransferRecord, rate: float | None) -> list[str]:
    steps = []
    if any(guard["share"] == 0 for guard in record.guards):
        images = record.guards[0]["images"]
        steps.append(f"The guard had {images:,} images to judge by and saw no sure gain: give it more (--guard-data).")
    if record.account["samples"] < FEW_IMAGES:
        steps.append(f"Measure on more images (--val): {record.account['samples']:,} cannot show a small gain.")
    if rate is None or rate < 0.25:
        steps.append("Learn from more images (--data) or for longer (--epochs).")
    return steps


def _noise(record: TransferRecord) -> Finding:
    account = record.account
    delta, (low, high) = account["transfer_delta_pp"], account["transfer_delta_ci_pp"]
    text = (
        f"Accuracy went from {account['accuracy_before']:.2%} to {account['accuracy_after']:.2%}: {delta:+.2f} points, "
        f"95 % interval {low:+.2f} to {high:+.2f}, on {account['samples']:,} images. The interval tells how far these "
        "images could have decided it, not what another seed or other transfer images would do."
    )
    question = "Is the change larger than its noise?"
    if account["agreement"] == 1:
        kept = " The guard kept the student that you gave." if record.guards else ""
        return Finding(question=question, answer="Nothing changed.", text=f"{text}{kept}")
    if low > 0:
        return Finding(question=question, answer="Yes, the student is better.", text=text, tone="good")
    if high < 0:
        return Finding(question=question, answer="Yes, the student is worse.", text=text, tone="bad")
    return Finding(question=question, answer="No: it may be chance.", text=text)


def _learned(record: TransferRecord, classes: Sequence[ClassKnowledge]) -> Finding:
    account = record.account
    there = sum(one.positive_flips for one in classes)
    arrived = sum(one.transferred for one in classes)
    gained = sum(one.gained for one in classes)
    text = f"{gained:,} images that were wrong are right now ({_interval(gained, account['samples'])})."
    if there:
        text += (
            f" {_the_teachers(record)} had {there:,} images right that the student had wrong; of these, {arrived:,} "
            f"are right now ({arrived / there:.0%}){_where(classes, 'transferred')}."
        )
    else:
        text += f" {_the_teachers(record)} had nothing right that the student had wrong: there was nothing to learn."
    return Finding(
        question="What was learned?",
        answer="Nothing." if not gained else f"{gained / account['samples']:.2%} of all images.",
        text=text,
        tone="good" if gained else "open",
    )


def _lost(record: TransferRecord, classes: Sequence[ClassKnowledge]) -> Finding:
    lost, samples = sum(one.lost for one in classes), record.account["samples"]
    if not lost:
        return Finding(question="What was lost?", answer="Nothing.", text="No image that was right is wrong now.")
    text = f"{lost:,} images that were right are wrong now ({_interval(lost, samples)}){_where(classes, 'lost')}."
    return Finding(question="What was lost?", answer=f"{lost / samples:.2%} of all images.", text=text, tone="bad")


def _adaptation(record: TransferRecord, sources: Sources) -> Finding:
    question = "Is it knowledge, or mere adaptation to the images?"
    if _is_control(record):
        return Finding(
            question=question,
            answer="Adaptation: this is the control.",
            text="The student was its own teacher, so nothing could be learned from another model.",
        )
    guard = record.account["guard"]
    if guard is not None and guard["adapted"]:
        return Finding(
            question=question,
            answer="Mere adaptation.",
            text="The guard kept the student that you gave with its batch-norm statistics re-estimated on the transfer "
            "images, and nothing that it learned.",
        )
    answer, text = _by_source(sources)
    return Finding(question=question, answer=answer, text=" ".join([text, *_by_guard(guard)]).strip())


def _by_source(sources: Sources) -> tuple[str, str]:
    """Whether gains lie where the teacher could show them; a hint and no proof, as the text says."""
    if not sources.known or not sources.unknown:
        return "It cannot be told.", "There are not both: images that a teacher could show, and images it could not."
    known, unknown = sources.known_gained / sources.known, sources.unknown_gained / sources.unknown
    text = (
        f"The student gained {known:.0%} of the {sources.known:,} images that a teacher could show it, and "
        f"{unknown:.0%} of the {sources.unknown:,} that it had wrong as all teachers had."
    )
    least = wilson_interval(sources.known_gained, sources.known)[0]
    most = wilson_interval(sources.unknown_gained, sources.unknown)[1]
    if least > most:
        text += " Mere adaptation would not favour the teacher's so much, though what it has right is easier, too."
        return "It looks like the teacher's knowledge.", text
    text += " The two are too close, or too few, to tell them apart: adaptation gains on both kinds."
    return "It may be mere adaptation.", text


def _by_guard(guard: dict[str, Any] | None) -> list[str]:
    """What the guard's images say of re-estimated batch-norm statistics alone."""
    if guard is None or not guard["labelled"]:
        return []
    gains = {(point["share"], point["adapted"]): point["gain"] for point in guard["points"]}
    adapted, kept = gains.get((0.0, True)), gains.get((guard["share"], False))
    if adapted is None or kept is None:
        return []
    return [
        f"On the guard's images, batch-norm statistics re-estimated on the transfer images change the accuracy by "
        f"{adapted:+.2f} points without any learning; the student that is kept changes it by {kept:+.2f}."
    ]


def _moved(record: TransferRecord) -> Finding:
    account = record.account
    pairs = zip(account["teachers"], account["agreement_with_teachers"], strict=True)
    nearer = [
        f"agreement with {teacher} went from {there[0]:.1%} to {there[1]:.1%}" for teacher, there in pairs if there
    ]
    text = (
        "The images measured on carry no labels, so nobody can tell right from wrong. On "
        f"{1 - account['agreement']:.1%} of {account['samples']:,} images the student answers differently now"
    )
    return Finding(
        question="What changed?",
        answer=f"{1 - account['agreement']:.1%} of the answers.",
        text="; ".join([text, *nearer]) + ".",
    )


def _guarded_without_labels(record: TransferRecord) -> list[Finding]:
    guard = record.account["guard"]
    if guard is None:
        return []
    if guard["share"] == 0 and not guard["adapted"]:
        return [
            Finding(
                question="Is it better?",
                answer="The guard was not sure.",
                text="It kept the student that you gave. Without labels it passes over most gains of a point or two.",
            )
        ]
    if guard["adapted"]:
        text = "It kept your student with its batch-norm statistics re-estimated: adaptation to the images alone."
    else:
        text = f"It kept the student {guard['share']:.0%} of the way from yours to the trained one."
    return [Finding(question="Is it better?", answer="The guard thinks so.", text=text, tone="good")]


def _where(classes: Sequence[ClassKnowledge], field: str) -> str:
    """Names the classes that hold the most of it."""
    top = sorted(classes, key=lambda one: -int(getattr(one, field)))[:NAMED_CLASSES]
    named = [f"{one.name} ({getattr(one, field)})" for one in top if getattr(one, field)]
    return f", the most in {', '.join(named)}" if named and len(classes) > 1 else ""


def _interval(count: int, samples: int) -> str:
    low, high = wilson_interval(count, samples)
    return f"95 % interval {low:.2%} to {high:.2%}"


def _is_control(record: TransferRecord) -> bool:
    digests = {teacher.get("digest") for teacher in record.config["teachers"]}
    return digests == {record.config["student"]["digest"]}


def _the_teachers(record: TransferRecord) -> str:
    names = short_names(list(record.account["teachers"]))
    if len(names) == 1:
        return f"The teacher {next(iter(names.values()))}"
    return f"The teachers {', '.join(names.values())}, at least one of them,"
