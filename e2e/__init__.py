"""The proof of the stack: a scripted program on the real servers, and every query of every dashboard against
what it did."""
