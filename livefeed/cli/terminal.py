"""What a terminal is shown of a text that somebody else wrote."""


def printable(text: str, characters_max: int = 128) -> str:
    """A text that neither breaks a line nor commands a terminal."""
    cut = text if len(text) <= characters_max else text[: characters_max - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut
    )
