"""What a user is told in one line: mistakes that are theirs to mend, and work that is not done."""


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


class Unfinished(RuntimeError):
    """Work stopped before its end, its state saved; run it again to go on."""
