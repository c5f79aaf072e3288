"""The answers of notebook 11: one minute, five, twenty; and the sentences that give a candidate away."""

import html
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from IPython.display import HTML


@dataclass(frozen=True)
class Piece:
    """Part of the five-minute answer: a closing sentence of a notebook."""

    lesson: str
    say: str


@dataclass(frozen=True)
class Leg:
    """Part of the twenty-minute answer."""

    until: int  # minute
    move: str  # problem, motivation, mechanism, real systems
    board: int  # step of plots.whiteboard that should be drawn by then; 0: nothing yet
    do: str


@dataclass(frozen=True)
class Wrong:
    """A wrong statement that is often heard."""

    says: str
    because: str
    see: str  # the notebook that shows it


@dataclass(frozen=True)
class Answers:
    """Everything in answers.toml."""

    words_a_minute: int
    one_minute: str
    five_minutes: tuple[Piece, ...]
    twenty_minutes: tuple[Leg, ...]
    wrong: tuple[Wrong, ...]


def load_answers() -> Answers:
    """The answers.

    Example:
        >>> load_answers().twenty_minutes[-1].until
        20
    """
    raw = tomllib.loads(files("course_lib.teaching").joinpath("answers.toml").read_text(encoding="utf-8"))
    return Answers(
        raw["words_a_minute"],
        raw["one_minute"].strip(),
        tuple(Piece(**piece) for piece in raw["five_minutes"]),
        tuple(Leg(**leg) for leg in raw["twenty_minutes"]),
        tuple(Wrong(**wrong) for wrong in raw["wrong"]),
    )


def five_minutes() -> str:
    """The closing sentences of the notebooks, as one text."""
    return " ".join(whole(piece.say) for piece in load_answers().five_minutes)


def whole(piece: str) -> str:
    """A piece that was cut out of a sentence, with a full stop."""
    return piece if piece.endswith((".", "?")) else piece.rstrip(",;:") + "."


def minutes(text: str) -> float:
    """How long a text takes to say, at the pace of somebody who thinks while speaking."""
    return len(text.split()) / load_answers().words_a_minute


def spoken(length: str) -> HTML:
    """An answer to read aloud.

    Args:
        length: "one minute" or "five minutes".
    """
    answers = load_answers()
    if length == "one minute":
        parts, text = [("", answers.one_minute)], answers.one_minute
    else:
        parts = [(piece.lesson, whole(piece.say)) for piece in answers.five_minutes]
        text = five_minutes()
    lines = "".join(
        f"<p style='margin:4px 0'><b>{lesson}</b> {html.escape(said)}</p>"
        if lesson
        else f"<p>{html.escape(said)}</p>"
        for lesson, said in parts
    )
    foot = (
        f"{len(text.split())} words, {minutes(text):.1f} minutes at {answers.words_a_minute} words a minute"
    )
    return HTML(f"<div style='font-size:115%;max-width:52em'>{lines}<p><i>{foot}</i></p></div>")


def twenty_minutes() -> HTML:
    """The script for a whiteboard, as a table."""
    cell = '<td style="text-align:left;vertical-align:top;padding:6px">'
    rows, begun = "", 0
    for leg in load_answers().twenty_minutes:
        board = f"board {leg.board}" if leg.board else ""
        rows += f"<tr>{cell}{begun}–{leg.until}</td>{cell}<b>{leg.move}</b></td>{cell}{board}</td>"
        rows += f"{cell}{html.escape(leg.do)}</td></tr>"
        begun = leg.until
    return HTML(
        f"<table><thead><tr><th>minute</th><th>move</th><th></th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def wrong_statements() -> HTML:
    """What one hears, and why it is wrong; folded, so that you can say why first."""
    return HTML(
        "".join(
            f"<details style='margin:6px 0;font-size:110%'><summary>✗ “{html.escape(wrong.says)}”</summary>"
            f"<p style='margin:4px 0 8px 1.5em'>{html.escape(wrong.because)} <i>Notebook {wrong.see}.</i></p></details>"
            for wrong in load_answers().wrong
        )
    )
