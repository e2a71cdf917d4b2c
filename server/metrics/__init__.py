"""What operators see at `/metrics`: the families, who fills them, and how they are served."""
