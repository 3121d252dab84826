"""Batches onto disk and back."""

import pickle
import tempfile


class Spool:
    """Objects written to a nameless file in ``folder`` and read back in order, once."""

    def __init__(self, folder):
        self._file = tempfile.TemporaryFile(dir=folder)

    def write(self, thing):
        pickle.dump(thing, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def read(self):
        """Yield everything that was written."""
        with self._file as file:
            file.seek(0)
            while True:
                try:
                    yield pickle.load(file)
                except EOFError:
                    return
