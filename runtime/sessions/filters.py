"""Which sessions a list holds: the part of the filter language of AIP-160 that is equality, joined by AND.

labels.site = "hall 3" AND state = ADAPTED AND paused = false
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from acclimate.runtime.errors import InvalidArgument
from acclimate.runtime.sessions.labels import LABEL_KEY
from acclimate.runtime.sessions.states import SessionState

MAX_FILTER, MAX_TERMS = 2048, 16
STATES = (SessionState.PRISTINE, SessionState.ADAPTED)
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|"
    r"(?P<word>[A-Za-z0-9_.~-]+)|(?P<sign>!=|<=|>=|.))",
    re.DOTALL,
)
_RESERVED = ("AND", "OR", "NOT")
_ONLY = "terms are FIELD = VALUE, joined by AND"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a filter looks at: `state` is what answers the session, paused or not."""

    model: str
    recipe: str
    state: SessionState
    labels: Mapping[str, str]

    @property
    def paused(self) -> bool:
        """Whether it does not learn."""
        return self.state.paused


Test = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def parse(text: str) -> Test | None:
    """What a filter asks of a session; None for the empty one, which asks nothing.

    Raises:
        InvalidArgument: it is too long, or not of this language; the message says where and what to write.
    """
    if len(text) > MAX_FILTER:
        raise _invalid(f"filter has {len(text)} characters; at most {MAX_FILTER} are read")
    tokens = list(_tokens(text))
    if not tokens:
        return None
    terms: list[Test] = []
    while tokens:
        if terms:
            joint = tokens.pop(0)
            if joint.kind != "word" or joint.text != "AND":
                raise _unread(joint, f"{_ONLY}")
        if len(tokens) < 3:
            raise _invalid(f"filter ends in the middle of a term; {_ONLY}")
        terms.append(_term(*tokens[:3]))
        del tokens[:3]
    if len(terms) > MAX_TERMS:
        raise _invalid(f"filter has {len(terms)} terms; at most {MAX_TERMS} are read")
    return lambda facts: all(term(facts) for term in terms)


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise _invalid(f"filter cannot be read at character {place + 1}")
        kind = str(match.lastgroup)
        yield _Token(kind, match.group(kind), match.start(kind))
        place = match.end()


def _term(name: _Token, sign: _Token, value: _Token) -> Test:
    if name.kind != "word" or name.text in _RESERVED:
        raise _unread(name, f"{_ONLY}")
    if sign.text != "=":
        raise _unread(sign, f"the only comparison is '='; {_ONLY}")
    if value.kind == "sign" or value.text in _RESERVED:
        raise _unread(value, "give a word, or text in quotes")
    return _test(name, re.sub(r"\\(.)", r"\1", value.text[1:-1]) if value.kind == "text" else value.text)


def _test(name: _Token, value: str) -> Test:
    field, _, key = name.text.partition(".")
    if field == "labels" and LABEL_KEY.fullmatch(key):
        return lambda facts: facts.labels.get(key) == value
    if name.text == "model":
        return lambda facts: facts.model == value
    if name.text == "recipe":
        return lambda facts: facts.recipe == value
    if name.text == "paused":
        wanted = _one_of(name, value.lower(), ("true", "false")) == "true"
        return lambda facts: facts.paused is wanted
    if name.text == "state":
        state = SessionState(_one_of(name, value.lower().removeprefix("state_"), STATES))
        return lambda facts: facts.state.answering is state
    raise _unread(name, "fields are labels.KEY, model, paused, recipe and state")


def _one_of(name: _Token, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise _invalid(f"filter: {name.text} is {value[:60]!r}; it is one of {[str(v) for v in values]}")
    return value


def _unread(token: _Token, why: str) -> InvalidArgument:
    return _invalid(f"filter: {token.text[:60]!r} at character {token.place + 1} is not read here; {why}")


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument("FILTER_INVALID", message, field="filter")
