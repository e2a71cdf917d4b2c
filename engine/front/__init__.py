"""The part of the engine in the API process: sessions, admission, tickets, supervision. No torch."""
