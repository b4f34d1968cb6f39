//! The database as a file: what is found there, what survives, what is refused.
