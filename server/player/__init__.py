"""The browser player over HTTP; its files are those of ``clients/player``."""
