"""Where the files of a data set lie. The data sets ask for files by relative name and never touch paths themselves."""

import os
from pathlib import Path

from lib.utils.errors import UserError


class DirectoryStorage:
    """Files of a folder on disk."""

    def __init__(self, root: str | Path):
        self.root = str(root)

    def locate(self, name: str) -> str:
        """Full name for messages."""
        return os.path.join(self.root, name)

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            UserError: it is missing or unreadable.
        """
        try:
            with open(self.locate(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise UserError(f"cannot read {self.locate(name)}: {error.strerror or error}") from error

    def read_text(self, name: str) -> str:
        """Content of a text file (UTF-8)."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.locate(name)} is no text file: {error}") from error

    def has_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return os.path.isfile(self.locate(name))

    def files(self, folder: str = "") -> list[str]:
        """Sorted names of the files in a folder; none when the folder is missing."""
        return self._names(folder, want_folders=False)

    def folders(self, folder: str = "") -> list[str]:
        """Sorted names of the folders in a folder; none when the folder is missing."""
        return self._names(folder, want_folders=True)

    def _names(self, folder: str, want_folders: bool) -> list[str]:
        try:
            with os.scandir(self.locate(folder)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() == want_folders)
        except (FileNotFoundError, NotADirectoryError):
            return []
