//! Scan and replay on real directories.
