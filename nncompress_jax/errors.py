"""The one exception for mistakes that a caller can mend."""


class InputError(ValueError):
    """An expected mistake in what was given: a name, a file, a shape, an option.

    Its message is one line that names what was found, what was expected and what to do. The commands
    print that line and exit with code 2; every other exception is a defect of ours and keeps its traceback.
    """


class ArtifactError(InputError):
    """A file of a compressed network that is damaged, of another format, or of a newer version.

    Its message names the file and the section; nothing of the file is used.
    """


class UnfinishedError(Exception):
    """A run that ended before its end, through no fault of its own; the same command goes on where it stopped."""

    exit_code = 75


class StorageError(Exception):
    """What cannot be written, for want of room or permission; what was written before is whole."""

    exit_code = 74
