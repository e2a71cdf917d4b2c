"""What the API says of itself: the table of its operations, its OpenAPI document, and a page to read."""
