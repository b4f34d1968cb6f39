//! Facts about the ledger, one per test.
