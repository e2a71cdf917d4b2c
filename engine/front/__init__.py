"""Videos and nothing of processes: sessions, admission, tickets, pacing. No torch."""
