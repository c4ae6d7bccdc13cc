"""Does the world behave as the log: logged sessions replayed by simulated users, and what the two sides differ in."""
