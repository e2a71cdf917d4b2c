"""What talks to the server over HTTP. Imports nothing else of this project."""
