r"""Units after or before a number: units of measurement, currencies, things that are counted.

    read_unit(tokens(r"\text{ miles per hour}"))   # Unit({("mile", 1), ("hour", -1)})
    read_unit(tokens("is wrong"))                   # None: no unit

English has any number of nouns and few other words. So every word counts as a possible unit, except known non-nouns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from openrlhf_cft.verify.notation import Token


@dataclass(frozen=True)
class Unit:
    """Units of measurement with their powers, and other nouns."""

    measures: frozenset[tuple[str, int]] = frozenset()
    nouns: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.measures or self.nouns)


NONE = Unit()
PERCENT = Unit(frozenset({("%", 1)}))
DEGREE = Unit(frozenset({("degree", 1)}))

_MEASURES = """
m meter meters metre metres|cm centimeter centimeters centimetre centimetres
mm millimeter millimeters millimetre millimetres|km kilometer kilometers kilometre kilometres kms
nm nanometer nanometers|inch inches in|foot feet ft|yard yards yd yds|mile miles mi|g gram grams
kg kilogram kilograms kgs kilo kilos|mg milligram milligrams|pound pounds lb lbs|ounce ounces oz
ton tons tonne tonnes|liter liters litre litres l|ml milliliter milliliters millilitre millilitres
gallon gallons gal|quart quarts qt|pint pints pt|cup cups|second seconds s sec secs
ms millisecond milliseconds|minute minutes min mins|hour hours h hr hrs|day days|week weeks wk wks
month months|year years yr yrs|decade decades|century centuries|dollar dollars $ usd buck bucks|cent cents ¢
euro euros € eur|sterling £ gbp|yuan rmb|rupee rupees rs|yen ¥|degree degrees deg|radian radians rad
% percent pct|n newton newtons|j joule joules|kj kilojoule kilojoules|w watt watts|v volt volts
amp amps ampere amperes|ohm ohms omega|kiloohm kiloohms kilohm kilohms|megohm megohms|milliohm milliohms
pa pascal pascals|kpa kilopascal kilopascals|k kelvin kelvins|hz hertz
mol mole moles|cal calorie calories|kcal kilocalorie kilocalories|ev|mev|angstrom angstroms|celsius|fahrenheit
unit units|ma milliamp milliamps|penny pennies|nickel nickels|dime dimes|quarter quarters|acre acres|erg ergs|kb|mb|gb
cms
""".strip().replace("\n", "|")
_CANONICAL = {name: group.split()[0] for group in _MEASURES.split("|") for name in group.split()}
_COMPOUND = {"mph": (("mile", 1), ("hour", -1)), "kph": (("km", 1), ("hour", -1)), "kmh": (("km", 1), ("hour", -1))}
_COMPOUND["mps"] = (("m", 1), ("second", -1))
# Symbols of one letter, which may be variables elsewhere.
_SYMBOLS = {"m": "m", "s": "second", "g": "g", "h": "hour", "L": "liter", "l": "liter", "N": "n", "J": "j", "W": "w"}
_SYMBOLS |= {"V": "v", "K": "k", "A": "amp", "C": "celsius", "F": "fahrenheit"}
_OHMS = {"k": "kiloohm", "M": "megohm", "m": "milliohm"}  # by what stands before the sign
# Measures of the same thing: the smaller one, and how many of it make the larger one.
_SCALES = {
    **{"km": ("mm", 10**6), "m": ("mm", 1_000), "cm": ("mm", 10), "mile": ("inch", 63_360), "yard": ("inch", 36)},
    **{"foot": ("inch", 12), "kg": ("mg", 10**6), "g": ("mg", 1_000), "pound": ("ounce", 16), "liter": ("ml", 1_000)},
    **{"week": ("second", 604_800), "day": ("second", 86_400), "hour": ("second", 3_600)},
    **{"minute": ("second", 60), "dollar": ("cent", 100), "dozen": ("", 12)},
    **{"ohm": ("milliohm", 1_000), "kiloohm": ("milliohm", 10**6), "megohm": ("milliohm", 10**9)},
    **{"century": ("month", 1_200), "decade": ("month", 120), "year": ("month", 12)},
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_BEHIND = {"squared": 2, "cubed": 3}

# With one of these words, a number and its words are not just a number of things.
OPERATIONS = frozenset(
    "and or to through than less more fewer greater times over divided multiplied plus minus squared cubed if "
    "unless when where whenever but else otherwise maybe perhaps possibly not isn't is are was were be been "
    "being am mod modulo factorial between either neither nor except excluding raised power root wrong "
    "incorrect false really actually rather instead choose although though however least most may might could "
    "would should can will do does did have has had until till versus vs approaches tends whichever whatever "
    "half halves third thirds quarters fifths tenth tenths ten tens hundreds hundredth hundredths thousands "
    "thousandth thousandths millions millionths billions remainder".split()
)
MULTIPLES = {"dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "hundred": 100}
_FILLERS = frozenset("of a an the in each every per total altogether long wide high tall deep away old left".split())


def read_unit(of: Sequence[Token]) -> Unit | None:
    """The unit that these tokens name, which may be empty; None if they are anything else."""
    measures: Counter[str] = Counter()
    nouns: set[str] = set()
    sign, power, position = 1, 1, 0
    while position < len(of):
        token = of[position]
        word = token.text.lower()
        position += 1
        if token.text == "." and position > 1:  # sq. ft.
            continue
        if word == "per" and position < len(of) and of[position].text.lower() == "cent":
            measures["%"] += 1
            position += 1
            continue
        if word in ("/", "per"):
            sign = -1
            continue
        if word in ("*", "-") and 1 < position < len(of):
            continue
        if token.kind == "mark":
            if word in ("$", "%", "€", "£", "¥", "¢"):
                measures[_CANONICAL[word]] += sign
                continue
            if word in (".", ",") and position == len(of):
                continue
            return None
        if token.kind == "macro" and word in ("min", "sec", "circ", "omega"):
            measures[{"min": "minute", "sec": "second", "circ": "degree", "omega": "ohm"}[word]] += sign
            continue
        if token.kind not in ("word", "letter"):
            return None
        if token.text in _OHMS and position < len(of) and of[position].text == "Omega":
            measures[_OHMS[token.text]] += sign
            position += 1
            continue
        if word in _POWERS:
            power = _POWERS[word]
            continue
        if word in _FILLERS and not (word == "in" and _ends(of, position)) and token.text != "A":
            continue
        if word in OPERATIONS:
            return None
        raised, position = _power_behind(of, position)
        power = raised or power
        names = _measures(token)
        if names is None:
            if token.kind == "letter" and not token.prose:
                return None
            nouns.add(singular(word))
        for name, exponent in names or ():
            measures[name] += sign * exponent * power
        sign, power = 1, 1
    if measures.pop("unit", None):  # square units say nothing
        nouns.add("unit")
    return Unit(frozenset((name, n) for name, n in measures.items() if n), frozenset(nouns))


def _ends(of: Sequence[Token], position: int) -> bool:
    """Whether only a power or dot follows. There `in` means inch; elsewhere it is a preposition."""
    return position == len(of) or of[position].text in ("^", ".", "/") or of[position].text.lower() in _POWERS_BEHIND


def scale(gold: Unit, answer: Unit) -> Fraction | None:
    """The factor that converts a number from the answer's unit to the gold answer's; None if there is none."""
    if len(gold.measures) != 1 or len(answer.measures) != 1:
        return None
    ((name, power),) = gold.measures
    ((other, other_power),) = answer.measures
    (base, factor), (other_base, other_factor) = _SCALES.get(name, (name, 1)), _SCALES.get(other, (other, 1))
    if power != other_power or base != other_base:
        return None
    return Fraction(other_factor, factor) ** power


def compatible(gold: Unit, answer: Unit) -> bool:
    """Whether numbers with these units can be equal: one of them has none, or both have the same."""
    if not gold or not answer or "unit" in gold.nouns | answer.nouns:
        return True
    if gold.measures or answer.measures:
        return gold.measures == answer.measures
    return bool(gold.nouns & answer.nouns)


def is_measure(token: Token) -> bool:
    """Whether a word is a unit of measurement, wherever it stands."""
    return token.kind == "word" and (token.text.lower() in _CANONICAL or token.text.lower() in _COMPOUND)


def is_symbol(token: Token) -> bool:
    """Whether a letter is the symbol of a unit, at a position where a unit may be."""
    return token.kind == "letter" and token.text in _SYMBOLS


def is_currency(token: Token) -> bool:
    """Whether this is a currency that is written before an amount."""
    return token.text.lower() in ("$", "€", "£", "¥", "usd", "eur", "gbp", "rmb", "rs")


def _measures(token: Token) -> tuple[tuple[str, int], ...] | None:
    if token.kind == "letter":
        return ((_SYMBOLS[token.text], 1),) if token.text in _SYMBOLS else None
    word = token.text.lower()
    if word in _COMPOUND:
        return _COMPOUND[word]
    return ((_CANONICAL[word], 1),) if word in _CANONICAL else None


def _power_behind(of: Sequence[Token], position: int) -> tuple[int, int]:
    """The power after a unit, as in `cm^2`, `cm^{-1}` and `cm squared`, 0 for none; and the position after it."""
    if position < len(of) and of[position].text.lower() in _POWERS_BEHIND:
        return _POWERS_BEHIND[of[position].text.lower()], position + 1
    texts = [token.text for token in of[position : position + 5]]
    if texts[:1] != ["^"]:
        return 0, position
    inner = texts[2:] if texts[1:2] == ["{"] else texts[1:2]
    if texts[1:2] == ["{"]:
        if "}" not in inner:
            return 0, position
        inner = inner[: inner.index("}")]
    text = "".join(inner)
    length = len(inner) + (3 if texts[1:2] == ["{"] else 1)
    return (int(text), position + length) if text.lstrip("-").isdecimal() and len(text) < 3 else (0, position)


def singular(word: str) -> str:
    """The singular of a noun, as far as its ending shows."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word
