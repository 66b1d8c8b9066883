"""What servers of pages share: who gets in, where they listen, the files of a page."""
