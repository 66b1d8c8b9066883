"""Actions of a test on a run while the run trains."""

import threading
from collections.abc import Callable

from run_store.folder import RunFolder


class Story(threading.Thread):
    """Thread with an action during the training; an error fails the test and ends the run."""

    def __init__(self, folder: RunFolder, tell: Callable[[], None]) -> None:
        super().__init__()
        self._folder, self._tell = folder, tell
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._tell()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._folder.ask_to_stop()

    def end(self) -> None:
        self.join()
        if self._failure:
            raise self._failure
