"""Errors that are the user's to mend: one line, naming what was expected and what was found."""


class UserError(ValueError):
    """A mistake in a setting or an input file.

    `where` names the setting (``runs.resunet.inputs``) or the file; the message reads
    ``where: expected …, found …``.
    """

    def __init__(self, where: object, expected: str, found: object) -> None:
        self.where, self.expected, self.found = str(where), expected, found
        super().__init__(f"{where}: expected {expected}, found {found}")

    def __reduce__(self):
        return type(self), (self.where, self.expected, self.found)
