//! A server and a path to it in a few lines, and what the probe makes of them.
