"""Videos and nothing of processes: their records, admission, tickets, pacing. No torch."""
