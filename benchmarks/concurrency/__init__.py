"""What concurrent callers gain and pay, against a simulated provider: flights, windows, the classic promises,
and what a call that has to wait holds in memory."""
