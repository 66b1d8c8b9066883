"""Write the phrase book to its file."""

import bz2

from data_pipeline.storage.phrasebook import FILE
from phrasebook.sampler import book_text

FILE.write_bytes(bz2.compress(book_text().encode()))
