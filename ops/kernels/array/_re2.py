r"""RE2's syntax of regular expressions, rewritten for Python's `re`.

They differ in few things: `\d`, `\s`, `\w` and `\b` know ASCII only, `\z` ends the text, `\Q...\E` quotes,
`[[:alpha:]]` names classes, `(?<name>` needs no `P`, and `{,n}` is text. RE2 has neither back references nor looking
around, nor possessive repetition.

Source: https://github.com/google/re2/wiki/Syntax.
"""

from __future__ import annotations

import re

from ...errors import OpError

CLASSES = {
    "d": "0-9",
    "D": r"\x00-/:-\U0010ffff",
    "s": r"\t\n\f\r ",
    "S": r"\x00-\x08\x0b\x0e-\x1f!-\U0010ffff",
    "w": "0-9A-Za-z_",
    "W": r"\x00-/:-@\[-\^`{-\U0010ffff",
}
ESCAPES = {"z": r"\Z", "A": r"\A", "b": r"(?a:\b)", "B": r"(?a:\B)", "a": r"\x07", "v": r"\x0b"}
NAMED = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
NEGATED = {
    "alnum": r"\x00-/:-@\[-`{-\U0010ffff",
    "alpha": r"\x00-@\[-`{-\U0010ffff",
    "ascii": r"\x80-\U0010ffff",
    "blank": r"\x00-\x08\x0a-\x1f!-\U0010ffff",
    "cntrl": r" -~\x80-\U0010ffff",
    "digit": CLASSES["D"],
    "graph": r"\x00- \x7f-\U0010ffff",
    "lower": r"\x00-`{-\U0010ffff",
    "print": r"\x00-\x1f\x7f-\U0010ffff",
    "punct": r"\x00- 0-9A-Za-z\x7f-\U0010ffff",
    "space": r"\x00-\x08\x0e-\x1f!-\U0010ffff",
    "upper": r"\x00-@\[-\U0010ffff",
    "word": CLASSES["W"],
    "xdigit": r"\x00-/:-@G-`g-\U0010ffff",
}
_ESCAPES = r"""\\Q(?P<quoted>.*?)(?:\\E|\Z)
    |\\x\{(?P<hex>[0-9A-Fa-f]+)\}
    |\\(?P<octal>[1-7][0-7]{1,2}|0[0-7]{0,2})
    |\\(?P<escape>.)"""
_OUTSIDE = re.compile(
    _ESCAPES
    + r"""|\(\?(?P<group>P?<(?![=!])|P=|[=!>(]|<[=!]|[imsU-]+(?=[:)])|:)
    |(?:[*+?]|\{\d+(?:,\d*)?\})\??(?P<more>[*+?]?)
    |(?P<open>\[\^?\]?)
    |(?P<brace>\{)
    |.""",
    re.VERBOSE | re.DOTALL,
)
_INSIDE = re.compile(
    _ESCAPES
    + r"""|\[:(?P<negated>\^?)(?P<named>[a-z]+):\]
    |(?P<close>\])
    |(?P<special>[\[&~|])
    |.""",
    re.VERBOSE | re.DOTALL,
)


def to_python(pattern: str) -> str:
    """Return a pattern of RE2 in the syntax of `re`.

    Raises:
        OpError: if RE2 would refuse it, or `re` cannot say it.
    """
    out: list[str] = []
    inside, at = False, 0
    while at < len(pattern):
        m = (_INSIDE if inside else _OUTSIDE).match(pattern, at)
        if m is None:
            raise _refused(pattern, pattern[at:])
        found = {k: v for k, v in m.groupdict().items() if v}
        out.append(_escape(pattern, found, inside) or (_in_class if inside else _plain)(pattern, found, m.group()))
        inside = "close" not in found if inside else "open" in found
        at = m.end()
    return "".join(out)


def _escape(pattern: str, found: dict[str, str], inside: bool) -> str:
    if "quoted" in found:
        return re.escape(found["quoted"])
    if "hex" in found or "octal" in found:
        return f"\\U{int(found['hex'], 16) if 'hex' in found else int(found['octal'], 8):08x}"
    letter = found.get("escape", "")
    if letter in CLASSES:
        return CLASSES[letter] if inside else f"[{CLASSES[letter]}]"
    if letter and (letter in "pPXCGZ" or letter.isdigit() or (inside and letter in "zAbB")):
        raise _refused(pattern, f"\\{letter}")
    return letter and ESCAPES.get(letter, f"\\{letter}")


def _in_class(pattern: str, found: dict[str, str], text: str) -> str:
    if "named" in found:
        table = NEGATED if "negated" in found else NAMED
        if found["named"] not in table:
            raise _refused(pattern, text)
        return table[found["named"]]
    return f"\\{text}" if "special" in found else text


def _plain(pattern: str, found: dict[str, str], text: str) -> str:
    group = found.get("group", "")
    if group in ("=", "!", "<=", "<!", ">", "(", "P=") or "U" in group:
        raise _refused(pattern, text)
    if "more" in found:
        raise _refused(pattern, f"the repetition {text}")
    return "(?P<" if group == "<" else r"\{" if "brace" in found else text


def _refused(pattern: str, what: str) -> OpError:
    return OpError(f"regex_full_match: {pattern!r}: {what} is not understood")
