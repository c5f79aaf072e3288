"""Listening to a parrot: what was said, what it should have been, and where the two part."""

from collections.abc import Mapping

from course_lib.teaching.clinic.parrot import healthy_speech
from course_lib.teaching.clinic.ward import Patient


def first_wrong_word(patient: Patient, name: str, prompt: str, num_words: int) -> int | None:
    """The number of the first word, from 0, that is wrong or missing in an answer; None if all are right."""
    said, right = patient.said(name).split(), healthy_speech(prompt, num_words).split()
    if said == right:
        return None
    return next((n for n, pair in enumerate(zip(said, right, strict=False)) if len(set(pair)) > 1), len(said))


def misheard(patient: Patient, prompts: Mapping[str, str], num_words: int) -> str | None:
    """A fault sentence if the engine crashed, or if one of these users was told something wrong."""
    if patient.crash:
        return f"it crashes: {patient.crash}"
    wrong = {name: first_wrong_word(patient, name, prompts[name], num_words) for name in prompts}
    wrong = {name: number for name, number in wrong.items() if number is not None}
    if not wrong:
        return None
    name, number = next(iter(wrong.items()))
    said = patient.said(name).split()
    right = healthy_speech(prompts[name], num_words).split()
    if number == len(said):
        return f"{name} is told {len(said)} words of {num_words}"
    others = f" ({len(wrong)} of {len(prompts)} users hear something wrong)" if len(wrong) > 1 else ""
    return f"{name} is told {said[number]!r} as word {number + 1}, not {right[number]!r}{others}"


def transcript(patient: Patient, prompts: Mapping[str, str], num_words: int) -> str:
    """Who was told what; below a wrong answer, what it should have been."""
    lines = []
    for name, prompt in prompts.items():
        lines.append(f"{name:<4} is told    {patient.said(name)}")
        if first_wrong_word(patient, name, prompt, num_words) is not None:
            lines.append(f"     and not    {healthy_speech(prompt, num_words)}")
    return "\n".join(lines)
