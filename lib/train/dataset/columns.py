"""Many texts as two arrays, which can be memory-mapped, and what tells such columns from others."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


class TextColumn(Sequence[str]):
    """A sequence of texts.

    Args:
        text: (bytes,) uint8, all texts in UTF-8 one after the other.
        ends: (texts,) int64, where each ends.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray):
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "TextColumn":
        """The column of `texts`."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override] - no slices
        if not -len(self.ends) <= index < len(self.ends):
            raise IndexError(f"text {index} of {len(self.ends)}")
        index %= len(self.ends)
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")


def columns_digest(columns: Iterable[np.ndarray]) -> str:
    """SHA-256 of the content of arrays, which may be memory-mapped, in hexadecimal."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.dtype.str}{column.shape}".encode())
        digest.update(np.ascontiguousarray(column))
    return digest.hexdigest()
