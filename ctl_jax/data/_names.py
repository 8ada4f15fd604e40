"""Names of files and classes, which may be bytes that are not UTF-8."""


def printable(name: str) -> str:
    r"""The name as text that can be written anywhere: bytes that are no UTF-8 become \xe9."""
    try:
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # Other surrogates, which no file's name has.
        return name.encode(errors="backslashreplace").decode()
