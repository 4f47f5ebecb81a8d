"""The conditions under which networks that restore images are tested, and their names."""

#: Conditions of the test: as trained, larger pixels, more noise, both.
CASES = ("none", "resolution", "noise", "both")

_WORDS = {
    "none": "as trained",
    "resolution": "larger pixels",
    "noise": "more noise",
    "both": "larger pixels and more noise",
}


def case_words(case: str) -> str:
    """A condition of the test in words."""
    return _WORDS.get(case, case)
