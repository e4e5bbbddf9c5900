"""The root of all errors that this project raises on purpose."""


class CompendiumError(Exception):
    """An error that a user can mend, with what to do about it.

    Parameters
    ----------
    message : str
        What is wrong, naming the file, the column or layer, and the rows or cells.
    remedy : str
        What the user can do about it, as one sentence.
    """

    def __init__(self, message, remedy):
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self):
        return f"{self.message}\nRemedy: {self.remedy}"


def listed(items, most=10):
    """Return items as text, and how many more there are than `most`."""
    text = ", ".join(map(str, list(items)[:most]))
    return text + (f" and {len(items) - most} more" if len(items) > most else "")
