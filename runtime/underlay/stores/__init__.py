"""Where stored answers live. A store has no policy: it keeps what it is given within its bounds."""
