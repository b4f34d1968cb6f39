//! The ledger against a plain recomputation, over random operations.
