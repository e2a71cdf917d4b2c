"""Numbers in 8 bits with scales: pages and linear layers."""
